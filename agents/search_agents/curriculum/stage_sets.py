"""The question sets of the training stages, drawn by difficulty from labelled questions (R1-Searcher, Table 1).

The paper's own: stage 1 has 200 medium questions of HotpotQA and 150 of 2WikiMultiHopQA;
stage 2 has 2,561 medium and 2,000 difficult of the one, 1,087 and 2,500 of the other. No
question is drawn twice.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from search_agents.config.load import read_yaml
from search_env.datasets.jsonl import read_questions, write_folder
from search_env.datasets.rows import SkippedRows
from search_env.errors import ConfigError, DatasetError, unknown_name
from search_env.types import Question

__all__ = ["LEVELS", "Curriculum", "build_stage_sets", "read_curriculum", "read_labelled", "write_stage_sets"]

LEVELS = ("easy", "medium", "difficult")

Curriculum = Mapping[str, Mapping[str, Mapping[str, int]]]
"""Stage -> source -> level -> number of questions."""


def read_curriculum(path: str | Path) -> Curriculum:
    """Read a curriculum in YAML: ``stage1: {hotpotqa: {medium: 200}}``.

    Raises:
        ConfigError: If it is none; the message names the key.
    """
    curriculum = read_yaml(Path(path))
    if not curriculum:
        raise ConfigError(f"{path}: a curriculum maps stages to sources, and this file is empty")
    for stage, sources in curriculum.items():
        for source, levels in _mapping(sources, f"{path}: {stage}").items():
            for level, count in _mapping(levels, f"{path}: {stage}.{source}").items():
                if level not in LEVELS:
                    raise ConfigError(f"{path}: {stage}.{source}: {unknown_name('level', str(level), LEVELS)}")
                if type(count) is not int or count < 0:
                    raise ConfigError(f"{path}: {stage}.{source}.{level} must be a number of questions, got {count!r}")
    return curriculum


def build_stage_sets(
    curriculum: Curriculum, sources: Mapping[str, Sequence[Question]], *, scale: float = 1.0, seed: int = 0
) -> dict[str, list[Question]]:
    """Draw the questions of each stage.

    Args:
        curriculum: How many of what.
        sources: Labelled questions by the curriculum's names; their `level` says how difficult they are.
        scale: Factor on every number, rounded up.
        seed: Of the draw.

    Returns:
        Stage -> its questions in random order, ids prefixed with their source.

    Raises:
        ConfigError: If the curriculum names a source that is not given.
        DatasetError: If there are too few questions of some level.
    """
    pools = {}
    for stage, wanted in curriculum.items():
        for source in wanted:
            if source not in sources:
                raise ConfigError(f"stage {stage!r}: {unknown_name('source', source, sources)}")
            for level in LEVELS:
                pool = [question for question in sources[source] if question.level == level]
                random.Random(f"{seed}/{source}/{level}").shuffle(pool)
                pools[source, level] = pool
    sets = {}
    for stage, wanted in curriculum.items():
        drawn: list[Question] = []
        for source, levels in wanted.items():
            for level, count in levels.items():
                found = _draw(pools[source, level], math.ceil(scale * count), f"{stage}: {level} questions of {source}")
                drawn += [dataclasses.replace(question, id=f"{source}/{question.id}") for question in found]
        random.Random(f"{seed}/{stage}").shuffle(drawn)
        sets[stage] = drawn
    return sets


def write_stage_sets(sets: Mapping[str, Sequence[Question]], out: Path) -> None:
    """Write ``<stage>.jsonl`` files into a folder."""
    for stage, questions in sets.items():
        write_folder(out, stage, questions, ())


def read_labelled(path: str | Path, skipped: SkippedRows | None = None) -> tuple[Question, ...]:
    """Read questions that bear one of `LEVELS`.

    Args:
        path: The file, as `search_env.datasets.read_questions` reads it.
        skipped: Counts the malformed rows that are left out; None if there must be none.

    Raises:
        DatasetError: If a row is malformed or has no such level.
    """
    questions = read_questions(path, skipped)
    for question in questions:
        if question.level not in LEVELS:
            raise DatasetError(
                f"{path}: question {question.id!r} has the level {question.level!r}, expected {', '.join(LEVELS)}; "
                "label the questions with `search-env difficulty`"
            )
    return questions


def _draw(pool: list[Question], count: int, what: str) -> list[Question]:
    if count > len(pool):
        raise DatasetError(
            f"{what}: {count} wanted, {len(pool)} left. Label more questions, or give a smaller --scale."
        )
    drawn, pool[:count] = pool[:count], []
    return drawn


def _mapping(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError(f"{where} must be a mapping, got {value!r}")
    return value

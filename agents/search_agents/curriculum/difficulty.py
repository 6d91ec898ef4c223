"""How difficult a question is for an agent: the number of attempts that it needs (R1-Searcher, section on data).

A question is asked again and again, with other samples, until it is answered right. Fewer
than 10 attempts make it easy, 10 to 20 medium, more than 20 difficult. Labels are written
chunk by chunk, so a labelling that is stopped goes on where it was, and ends as one that
was not: what is sampled depends on seed, chunk and attempt alone.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from search_agents.methods import MethodSpec, Setting, make_method
from search_agents.rollout import derive_seed
from search_env import metrics
from search_env.datasets.jsonl import question_fields
from search_env.datasets.rows import read_rows
from search_env.errors import ConfigError, DatasetError, RetrieverUnavailable
from search_env.types import Question, StopReason

__all__ = ["ATTEMPTS", "DifficultyLabel", "label_difficulty", "level_of"]

ATTEMPTS = 20
"""Attempts after which a question is difficult."""

_MEDIUM_FROM = 10


@dataclass(frozen=True, kw_only=True)
class DifficultyLabel:
    """How a question went."""

    question: Question
    """The question with its new `level`."""
    rollouts: int | None
    """The attempt that was right, from 1; None if none of `ATTEMPTS` was."""


def level_of(rollouts: int | None) -> str:
    """``easy``, ``medium`` or ``difficult``, by the number of attempts that a question needed; None for too many."""
    if rollouts is None or rollouts > ATTEMPTS:
        return "difficult"
    return "easy" if rollouts < _MEDIUM_FROM else "medium"


def label_difficulty(
    setting: Setting,
    questions: Sequence[Question],
    out: Path,
    *,
    method: MethodSpec = "r1-searcher",
    metric: str = "cem",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> list[DifficultyLabel]:
    """Label questions, and go on with a file that holds some of the labels.

    Args:
        setting: The agent and its environment; the temperature must not be 0, for attempts to differ.
        questions: Questions of the setting's dataset.
        out: JSON lines, one label a line: the question in the format of question files, with ``level`` and
            ``rollouts``. Labels that it holds are kept.
        method: Name of the method that answers.
        metric: The metric that must be 1 for an answer to be right.
        on_progress: Told how many questions are answered and how many there are, after each attempt.

    Returns:
        All labels, in the order of the questions.

    Raises:
        ConfigError: If the temperature is 0, or the file holds other questions.
        RetrieverUnavailable: If the search failed for good; the labels so far are kept.
    """
    if setting.sampling.temperature == 0:
        raise ConfigError("every attempt at temperature 0 is the same; give a temperature above 0, for example 1.0")
    labels = _read_labels(out, questions)
    size = 8 * setting.env.num_envs  # enough for slots to be full while easy questions drop out
    done = len(labels)
    on_progress(done, len(questions))
    for first in range(0, len(questions), size):
        chunk = questions[first : first + size]
        if first + len(chunk) <= done:
            continue
        of_chunk = dataclasses.replace(setting, seed=derive_seed(setting.seed, first))
        needed: dict[str, int | None] = {}
        for attempt, right in _attempts(of_chunk, chunk, method, metric):
            needed |= dict.fromkeys(right, attempt)
            on_progress(max(done, first + len(needed)), len(questions))
        fresh = [_label(question, needed.get(question.id)) for question in chunk][max(0, done - first) :]
        with out.open("a", encoding="utf-8") as file:
            file.writelines(_line(label) for label in fresh)
        labels += fresh
        on_progress(len(labels), len(questions))
    return labels


def _attempts(
    setting: Setting, questions: Sequence[Question], method: MethodSpec, metric: str
) -> Iterator[tuple[int, list[str]]]:
    """Ask what is not yet answered right, again and again; yields each attempt with the ids of those it got right."""
    left = list(questions)
    for attempt in range(1, ATTEMPTS + 1):
        if not left:
            return
        agent = make_method(method, dataclasses.replace(setting, seed=derive_seed(setting.seed, attempt)))
        transcripts = list(agent.run(left))
        if any(transcript.stop_reason is StopReason.RETRIEVER_UNAVAILABLE for transcript in transcripts):
            raise RetrieverUnavailable(
                "the search failed for good. The labels so far are kept: run the same command again to go on."
            )
        right = {t.question.id for t in transcripts if metrics.score(t.answer, t.question.answers)[metric] == 1}
        left = [question for question in left if question.id not in right]
        yield attempt, sorted(right)


def _label(question: Question, rollouts: int | None) -> DifficultyLabel:
    return DifficultyLabel(question=dataclasses.replace(question, level=level_of(rollouts)), rollouts=rollouts)


def _line(label: DifficultyLabel) -> str:
    return json.dumps({**question_fields(label.question), "rollouts": label.rollouts}, ensure_ascii=False) + "\n"


def _read_labels(out: Path, questions: Sequence[Question]) -> list[DifficultyLabel]:
    """The labels that a file holds: those of the first questions, in their order."""
    if not out.exists():
        out.parent.mkdir(parents=True, exist_ok=True)
        return []
    text = out.read_bytes()
    if not text.endswith(b"\n"):  # a line that a stop cut short
        out.write_bytes(text[: text.rfind(b"\n") + 1])
    labels: list[DifficultyLabel] = []
    for row, question in zip(read_rows(out), questions, strict=False):
        if row.text("id") != question.id or row.text("question") != question.text:
            raise row.error(f"is a label of another question than {question.id!r}; give --out a new file")
        labels.append(_label(question, row.get("rollouts", None)))
    if sum(1 for _ in read_rows(out)) > len(questions):
        raise DatasetError(f"{out} holds more labels than there are questions, {len(questions)}; give a new file")
    return labels

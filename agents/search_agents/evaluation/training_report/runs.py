"""What a report tells of a training run, read from its folder; the run may still be going on."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from search_agents.evaluation.report import METHOD_ROWS
from search_agents.learning.run_folder import RunFolder
from search_env.datasets.rows import describe_value
from search_env.errors import RunError

__all__ = ["TrainingRun", "read_run"]

Json = Mapping[str, Any]

_AGENTS = ("before", "stage1", "after")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRun:
    """The figures of one run."""

    path: Path
    config: Json
    """As the run was started with."""
    rows: list[Json]
    """The metrics of each step, in order."""
    evaluations: dict[str, Json]
    """The scores of what was evaluated, by its name for people, in the order of the table."""
    finished: bool
    seconds: float
    """Wall-clock time up to its last step or evaluation."""


def read_run(path: Path, summary: Json | None = None) -> TrainingRun:
    """Read the figures of a run.

    Args:
        path: The run folder.
        summary: The content of ``summary.json``, if it is not written yet but will be.

    Raises:
        RunError: If it is no run folder, or a file in it is damaged; names file and line.
    """
    folder = RunFolder.open(path)
    rows = list(_read_metrics(path / "metrics.jsonl"))
    if summary is None and folder.finished:
        summary = json.loads((path / "summary.json").read_text(encoding="utf-8"))
    evaluations = _evaluations(folder)
    floors = {f"floor: {name.replace('_', ' ')}": scores for name, scores in (summary or {}).get("floors", {}).items()}
    return TrainingRun(
        path=path,
        config=folder.meta()["config"],
        rows=rows,
        evaluations={**evaluations, **floors},
        finished=summary is not None,
        seconds=max((done.get("elapsed") or 0.0 for done in (*rows, *evaluations.values())), default=0.0),
    )


def _evaluations(folder: RunFolder) -> dict[str, Json]:
    """All that are done: at the first temperature, then the agent's at the others."""
    names = dict(METHOD_ROWS)
    others = {file.stem.rsplit("-t", 1)[1] for file in (folder.path / "evaluations").glob("*-t*.json")}
    for temperature in sorted(others):
        names |= {f"{agent}-t{temperature}": f"{names[agent]}, temperature {temperature}" for agent in _AGENTS}
    return {name: scores for key, name in names.items() if (scores := folder.evaluation(key)) is not None}


def _read_metrics(file: Path) -> Iterator[Json]:
    """The lines of all steps; a torn last one is left out, as the run itself leaves it out when it goes on."""
    if not file.is_file():
        return
    lines = file.read_bytes().split(b"\n")[:-1]
    last = 0
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            row = json.loads(line)
            _check(row, after=last)
        except (ValueError, RecursionError) as error:  # of JSON and of UTF-8, too
            raise RunError(
                f"{file}:{number}: is no line of metrics: {error}. Delete the line to report the other steps, "
                "or give other runs."
            ) from None
        last = row["step"]
        yield row


def _check(row: Any, *, after: int) -> None:
    """Make sure that a line holds the figures of a step.

    Raises:
        ValueError: If it does not.
    """
    if not isinstance(row, dict):
        raise ValueError(f"it must be a JSON object {{…}}, not {describe_value(row)}")
    step, stage = row.get("step"), row.get("stage")
    if type(step) is not int or step <= after:
        raise ValueError(f"'step' must be a whole number above {after}, got {describe_value(step)}")
    if not isinstance(stage, str):
        raise ValueError(f"'stage' must be text, got {describe_value(stage)}")
    for key, value in row.items():
        if key == "stage" or value is None:
            continue
        if type(value) not in (int, float) or not math.isfinite(value):
            raise ValueError(f"{key!r} must be a finite number or null, got {describe_value(value)}")

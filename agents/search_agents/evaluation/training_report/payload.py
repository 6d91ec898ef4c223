"""What the report of one or several training runs shows, as plain values."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from search_agents.config import differing_keys
from search_agents.evaluation.curves import make_band, panels_of, stage_bounds
from search_agents.evaluation.training_report.runs import TrainingRun
from search_agents.evaluation.training_report.samples import read_samples
from search_env.errors import ConfigError

__all__ = ["Payload", "make_payload"]

Payload = dict[str, Any]
"""Values that JSON can hold."""

_SCORES = (
    ("F1", "f1"),
    ("EM", "em"),
    ("ACC_R", "cem"),
    ("search rate", "search_rate"),
    ("format rate", "format_rate"),
    ("searches/q", "searches_per_question"),
)
_SEED_KEYS = frozenset({"run.seed", "run.name"})
"""Keys in which the seeds of one recipe may differ."""


def make_payload(runs: Sequence[TrainingRun]) -> Payload:
    """Put together what the page shows.

    Args:
        runs: One, or the seeds of one recipe, whose curves are drawn as their mean with a band from the lowest to the
            highest.

    Returns:
        ``runs``, the keys of the config in which they ``differ`` beside the seed, ``panels`` of curves, ``tables``
        of text, and the ``samples`` of each run.

    Raises:
        ConfigError: If a run is given twice, or some runs are supervised and others are not.
        DatasetError: If a file of samples is damaged; names file and line.
    """
    _check_comparable(runs)
    metrics = [run.rows for run in runs]
    return {
        "runs": [_run(run, name) for run, name in zip(runs, _names(runs), strict=True)],
        "differ": _differing(runs),
        "panels": [
            {
                "title": panel.title,
                "curves": [
                    {"key": key, "label": label, **dataclasses.asdict(make_band(metrics, key))}
                    for key, label in panel.curves
                ],
            }
            for panel in panels_of(metrics)
        ],
        "tables": [table for table in (_evaluation_table(runs), _training_table(metrics)) if table["rows"]],
        "samples": [read_samples(run.path) for run in runs],
    }


def _check_comparable(runs: Sequence[TrainingRun]) -> None:
    twice = [path for path, number in Counter(run.path.resolve() for run in runs).items() if number > 1]
    if twice:
        raise ConfigError(f"{twice[0]} is given twice, which would narrow the band. Give each run once.")
    supervised = ["sft" in run.config for run in runs]
    if len(set(supervised)) > 1:
        one, other = runs[supervised.index(True)].path, runs[supervised.index(False)].path
        raise ConfigError(
            f"{one} is supervised and {other} is not: they have no curve in common. Report each alone: "
            f"search-env report {one} --out FILE"
        )


def _run(run: TrainingRun, name: str) -> dict[str, Any]:
    return {
        "name": name,
        "path": str(run.path),
        "seed": run.config["run"]["seed"],
        "model": str(run.config["model"]["path"]),
        "steps": dict(Counter(row["stage"] for row in run.rows)),
        "seconds": run.seconds,
        "finished": run.finished,
        "bounds": [{"place": place, "stage": stage} for place, stage in stage_bounds(run.rows)],
    }


def _names(runs: Sequence[TrainingRun]) -> list[str]:
    """The last part of each path; where they are the same, the whole path."""
    names = [Path(os.path.abspath(run.path)).name for run in runs]  # a link keeps the name that it was given
    return names if len(set(names)) == len(names) else [str(run.path) for run in runs]


def _differing(runs: Sequence[TrainingRun]) -> list[str]:
    first, *others = runs
    keys = {key for other in others for key in differing_keys(first.config, other.config)}
    return sorted(keys - _SEED_KEYS)


def _evaluation_table(runs: Sequence[TrainingRun]) -> Payload:
    """Every method that was evaluated, in the order of the first run that has it."""
    methods = dict.fromkeys(method for run in runs for method in run.evaluations)
    found = {method: [run.evaluations[method] for run in runs if method in run.evaluations] for method in methods}
    temperatures = {run.config["evaluation"]["temperatures"][0] for run in runs}
    told = f", temperature {temperatures.pop():g} where none is named" if len(temperatures) == 1 else ""
    return {
        "title": f"Evaluation on held-out questions{told}",
        "header": ["method", "questions", *(label for label, _ in _SCORES)],
        "rows": [
            [method, *(_over(scores, key, digits) for key, digits in (("n", 0), *((key, 3) for _, key in _SCORES)))]
            for method, scores in found.items()
        ],
    }


def _training_table(metrics: Sequence[Sequence[Mapping[str, Any]]]) -> Payload:
    """The drawn metrics at the first and the last step of each run."""
    stepped = [rows for rows in metrics if rows]
    firsts, lasts = [rows[0] for rows in stepped], [rows[-1] for rows in stepped]
    return {
        "title": "Training",
        "header": ["metric", "first step", "last step"],
        "rows": [
            [label, _over(firsts, key, 3), _over(lasts, key, 3)]
            for panel in panels_of(metrics)
            for key, label in panel.curves
        ],
    }


def _over(scores: Sequence[Mapping[str, Any]], key: str, digits: int) -> str:
    """The mean over the runs, with the lowest and the highest where they differ; ``-`` if none has it."""
    values = [each[key] for each in scores if each.get(key) is not None]
    if not values:
        return "-"
    mean, low, high = (f"{value:.{digits}f}" for value in (fmean(values), min(values), max(values)))
    return mean if low == high else f"{mean} ({low} to {high})"

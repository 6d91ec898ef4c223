"""The curves of training: which metrics are drawn together, and what several runs make of each, step by step.

Both the plots and the pages of a run are drawn from here, so they show the same figures.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

__all__ = ["Band", "Panel", "make_band", "panels_of", "stage_bounds"]

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Panel:
    """Curves that share an axis."""

    title: str
    curves: tuple[tuple[str, str], ...]
    """Key in metrics.jsonl and label of each."""


@dataclass(frozen=True, slots=True)
class Band:
    """One metric of some runs of a recipe. Let S be the number of steps at which at least one run has measured it."""

    steps: list[int]
    """[S], ascending."""
    mean: list[float]
    """Over the runs that have measured it at the step, [S]."""
    low: list[float]
    """The lowest of them, [S]."""
    high: list[float]
    """The highest of them, [S]."""
    runs: list[int]
    """How many they are, [S]: the stages of some runs may end sooner than those of others."""


_POLICY_PANELS = (
    Panel("Reward", (("reward", "reward"),)),
    Panel("Answers", (("f1", "F1"), ("em", "exact match"))),
    Panel("Search and format", (("search_rate", "episodes that search"), ("format_rate", "right format"))),
    Panel("Searches per question", (("searches_per_question", "searches"),)),
    Panel("Response length (tokens)", (("response_tokens", "sampled tokens per episode"),)),
    Panel("Entropy", (("entropy", "entropy (nats per token)"),)),
    Panel("KL", (("kl", "KL of one update"), ("reference_kl", "KL to the reference model"))),
    Panel("Signal and budgets", (("signal_rate", "groups with signal"), ("truncated", "truncated episodes"))),
)
_SUPERVISED_PANELS = (
    Panel("Loss", (("loss", "loss (nats per token)"),)),
    Panel("Entropy", (("entropy", "entropy (nats per token)"),)),
    Panel("Gradient", (("grad_norm", "norm before clipping"),)),
)


def panels_of(runs: Sequence[Sequence[Row]]) -> list[Panel]:
    """The panels that the runs have figures for, without the curves that they have none for.

    Args:
        runs: The metrics of each run, step by step. Runs that play episodes have a reward; supervised ones have not.
    """
    measured = {key for run in runs for row in run for key, value in row.items() if value is not None}
    panels = _POLICY_PANELS if "reward" in measured else _SUPERVISED_PANELS
    kept = [Panel(panel.title, tuple(curve for curve in panel.curves if curve[0] in measured)) for panel in panels]
    return [panel for panel in kept if panel.curves]


def make_band(runs: Sequence[Sequence[Row]], key: str) -> Band:
    """The mean of a metric over the runs, with a band from the lowest to the highest, step by step.

    Args:
        runs: The metrics of each run.
        key: The metric. Where it is None or missing, the run has not measured it.
    """
    last = max((row["step"] for run in runs for row in run), default=0)
    values = np.full((len(runs), last + 1), np.nan)  # [run, step]
    for index, run in enumerate(runs):
        for row in run:
            if row.get(key) is not None:
                values[index, row["step"]] = row[key]
    steps = np.flatnonzero(~np.isnan(values).all(axis=0))
    values = values[:, steps]
    return Band(
        steps=steps.tolist(),
        mean=np.nanmean(values, axis=0).tolist(),
        low=np.nanmin(values, axis=0).tolist(),
        high=np.nanmax(values, axis=0).tolist(),
        runs=(~np.isnan(values)).sum(axis=0).tolist(),
    )


def stage_bounds(run: Sequence[Row]) -> list[tuple[float, str]]:
    """Where a stage gives way to the next: the place between two steps, and the name of the stage that begins."""
    return [(row["step"] + 0.5, after["stage"]) for row, after in pairwise(run) if row["stage"] != after["stage"]]

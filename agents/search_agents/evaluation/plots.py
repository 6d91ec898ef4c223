"""The curves of a run and the bars of its evaluation, as PNG and SVG.

Nothing is shown on a screen, and equal figures give equal SVG files. Several runs of
one recipe are drawn as their mean with a band from the lowest to the highest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from search_agents.evaluation.curves import make_band, panels_of, stage_bounds
from search_env.errors import MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_arms", "plot_comparison", "plot_sweep", "plot_training"]

Row = Mapping[str, Any]

_BLUE, _ORANGE, _GREEN, _GREY = "#2a6fbb", "#d9772b", "#3a9a5b", "#8a8f98"
_COLORS = (_BLUE, _ORANGE)
_ARM_COLORS = (_BLUE, _ORANGE, _GREEN, "#8a5fb0", "#b0485c", _GREY)
_ARM_PANELS = (
    ("f1", "F1"),
    ("searches_per_question", "Searches per question"),
    ("response_tokens", "Response length (tokens)"),
    ("format_rate", "Right format"),
)
_PANELS_IN_A_ROW = 4
_BARS = (
    ("closed_book_before", "closed book,\nuntrained"),
    ("rag_before", "one retrieval,\nuntrained"),
    ("before", "agent,\nuntrained"),
    ("forced_query", "untrained,\nforced query"),
    ("closed_book_after", "closed book,\ntrained"),
    ("rag_after", "one retrieval,\ntrained"),
    ("stage1", "agent, after\nstage 1"),
    ("after", "agent,\ntrained"),
)


def plot_training(runs: Sequence[Sequence[Row]], folder: Path) -> list[Path]:
    """Draw what training did, step by step.

    Args:
        runs: The metrics of each run (`RunFolder.metrics`); several make bands.
        folder: Where ``training.png`` and ``training.svg`` go.

    Returns:
        The files written; none if no run has a step with figures.
    """
    runs = [run for run in runs if run]
    panels = panels_of(runs)
    if not panels:
        return []
    columns = min(len(panels), _PANELS_IN_A_ROW)
    lines = -(-len(panels) // columns)
    figure = _figure(width=3.6 * columns, height=3 * lines)
    for place, panel in enumerate(panels):
        axes = figure.add_subplot(lines, columns, place + 1)
        for (key, label), color in zip(panel.curves, _COLORS, strict=False):
            _draw_curve(axes, runs, key, label=label, color=color)
        for run in runs:
            for bound, _ in stage_bounds(run):
                axes.axvline(bound, color=_GREY, lw=1, ls="--", alpha=1 if len(runs) == 1 else 0.5)
        _dress(axes, panel.title, legend=True)
        axes.set_xlabel("step", fontsize=8)
        axes.locator_params(axis="x", integer=True)
    return _save(figure, folder, "training")


def plot_arms(arms: Mapping[str, Sequence[Sequence[Row]]], folder: Path) -> list[Path]:
    """Draw what the arms of an ablation did in training, step by step, in one colour each.

    Args:
        arms: The metrics of each run of an arm, by its name; several runs make bands. Runs that play no episodes have
            no curve here.
        folder: Where ``training.png`` and ``training.svg`` go.

    Returns:
        The files written; none if no arm plays episodes.
    """
    playing = {name: runs for name, runs in arms.items() if any("f1" in row for run in runs for row in run)}
    if not playing:
        return []
    figure = _figure(width=3.6 * len(_ARM_PANELS), height=3)
    for place, (key, title) in enumerate(_ARM_PANELS):
        axes = figure.add_subplot(1, len(_ARM_PANELS), place + 1)
        for (name, runs), color in zip(playing.items(), cycle(_ARM_COLORS), strict=False):
            _draw_curve(axes, runs, key, label=name, color=color)
        _dress(axes, title, legend=True)
        axes.set_xlabel("step", fontsize=8)
        axes.locator_params(axis="x", integer=True)
    return _save(figure, folder, "training")


def plot_comparison(summary: Mapping[str, Any], folder: Path) -> list[Path]:
    """Draw the evaluation: every method beside the agent before and after, and the agent by hops.

    Args:
        summary: The content of ``summary.json``; evaluations that it lacks are left out.
        folder: Where ``comparison.png`` and ``comparison.svg`` go.

    Returns:
        The files written.
    """
    figure = _figure(width=12, height=4)
    left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": [3, 2]})
    bars = [(label, summary[key]) for key, label in _BARS if key in summary]
    _draw_bars(
        left,
        [label for label, _ in bars],
        {
            "F1": ([scores["f1"] for _, scores in bars], _BLUE),
            "exact match": ([scores["em"] for _, scores in bars], _ORANGE),
        },
    )
    _dress(left, "Held-out questions", legend=True)
    agents = [
        (label, key, color)
        for label, key, color in (
            ("untrained", "before", _GREY),
            ("after stage 1", "stage1", _ORANGE),
            ("trained", "after", _BLUE),
        )
        if "by_hops" in summary.get(key, {})
    ]
    hops = sorted({hop for _, key, _ in agents for hop in summary[key]["by_hops"]})
    _draw_bars(
        right,
        [f"{hop} hop{'' if str(hop) == '1' else 's'}" for hop in hops],
        {
            label: ([summary[key]["by_hops"].get(hop, {}).get("f1", 0.0) for hop in hops], color)
            for label, key, color in agents
        },
    )
    _dress(right, "F1 of the agent by hops", legend=bool(agents))
    for axes in (left, right):
        axes.set_ylim(0, 1)
    return _save(figure, folder, "comparison")


def plot_sweep(trials: Sequence[Row], fields: Mapping[str, str], folder: Path, *, metric: str) -> list[Path]:
    """Draw a sweep: the metric over the iterations of each trial, and against each field that was swept.

    Args:
        trials: The best first: ``trial``, ``config``, ``status``, ``last``, and the ``curve`` of iterations and metric.
        fields: What was swept, each with the kind of its values: ``linear``, ``log`` or ``list``.
        folder: Where ``curves`` and ``fields`` go, as PNG and SVG.
        metric: Its name.

    Returns:
        The files written; none if no trial has a metric.
    """
    if not trials:
        return []
    curves = _figure(width=7, height=4)
    _draw_trials(curves.subplots(), trials, metric)
    columns = min(3, len(fields))
    lines = -(-len(fields) // columns)
    swept = _figure(width=4 * columns, height=3.2 * lines)
    panels = swept.subplots(lines, columns, squeeze=False).flat
    for (field, kind), axes in zip(fields.items(), panels, strict=False):
        _dress(axes, field, legend=False)
        _draw_field(axes, trials, field, kind)
        axes.set_ylabel(f"last {metric}", fontsize=8)
    for axes in panels:  # those that are left over
        axes.set_axis_off()
    return [*_save(curves, folder, "curves"), *_save(swept, folder, "fields")]


def _draw_trials(axes: Axes, trials: Sequence[Row], metric: str) -> None:
    """A curve for each trial, with its number at the end: the best one in blue, those that failed in orange."""
    for rank, trial in enumerate(trials):
        iterations = [iteration for iteration, _ in trial["curve"]]
        values = [np.nan if value is None else value for _, value in trial["curve"]]
        color, label = (_BLUE, "the best") if rank == 0 else (_GREY, None)
        if trial["status"] == "failed":
            color, label = _ORANGE, "failed"
        width, order = (2.2, 3) if rank == 0 else (1.2, 2)
        axes.plot(iterations, values, color=color, lw=width, zorder=order, marker="o", ms=3, label=label)
        axes.text(iterations[-1], values[-1], f"  {trial['trial']}", va="center", fontsize=7, color=color)
    _dress(axes, f"{metric} of each trial", legend=True)
    axes.set_xlabel("iteration", fontsize=8)
    axes.locator_params(axis="x", integer=True)


def _draw_field(axes: Axes, trials: Sequence[Row], field: str, kind: str) -> None:
    """A point for each trial; the best one in blue."""
    values = [trial["config"][field] for trial in trials]
    axes.set_xscale("log" if kind == "log" else "linear")
    if kind == "list":
        names = sorted({str(value) for value in values}, key=lambda name: (len(name), name))
        axes.set_xticks(range(len(names)), names)
        axes.set_xlim(-0.5, len(names) - 0.5)
        values = [names.index(str(value)) for value in values]
    metric = [np.nan if trial["last"] is None else trial["last"] for trial in trials]
    axes.scatter(values[1:], metric[1:], color=_GREY, s=22)
    axes.scatter(values[:1], metric[:1], color=_BLUE, s=36, zorder=3)
    if kind == "log":
        axes.tick_params(axis="x", which="both", labelsize=6, rotation=30)


def _figure(*, width: float, height: float) -> Figure:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingDependencyError("plots need matplotlib. Install it: pip install 'search-env[train]'") from None
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _draw_curve(axes: Axes, runs: Sequence[Sequence[Row]], key: str, *, label: str, color: str) -> None:
    band = make_band(runs, key)
    if len(runs) > 1:
        axes.fill_between(band.steps, band.low, band.high, color=color, alpha=0.2, lw=0)
    axes.plot(band.steps, band.mean, color=color, label=label, lw=1.8)


def _draw_bars(axes: Axes, labels: Sequence[str], series: Mapping[str, tuple[Sequence[float], str]]) -> None:
    places = np.arange(len(labels))
    width = 0.8 / max(len(series), 1)
    for index, (name, (values, color)) in enumerate(series.items()):
        shifted = places + (index - (len(series) - 1) / 2) * width
        drawn = axes.bar(shifted, values, width, color=color, label=name)
        axes.bar_label(drawn, fmt="%.2f", fontsize=6, padding=1)
    axes.set_xticks(places, labels, fontsize=7)


def _dress(axes: Axes, title: str, *, legend: bool) -> None:
    axes.set_title(title, fontsize=10, loc="left")
    axes.grid(axis="y", color="#e4e6ea", lw=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    if legend:
        axes.legend(fontsize=7, frameon=False)


def _save(figure: Figure, folder: Path, name: str) -> list[Path]:
    import matplotlib

    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{name}.png", folder / f"{name}.svg"]
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(files[0], dpi=130)
        figure.savefig(files[1], metadata={"Date": None})
    return files

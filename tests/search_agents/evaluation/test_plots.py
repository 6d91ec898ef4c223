"""Plots: the right curves with stage marks and bands, as PNG and SVG, the same each time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from search_agents.evaluation import plots
from search_agents.evaluation.plots import plot_arms, plot_comparison, plot_training

KEYS = ("reward", "f1", "em", "search_rate", "format_rate", "searches_per_question", "response_tokens", "entropy", "kl")


def run(offset: float = 0.0, steps: int = 6) -> list[dict[str, Any]]:
    return [
        {"step": step, "stage": "stage1" if step <= 2 else "stage2", **{key: step / 10 + offset for key in KEYS}}
        for step in range(1, steps + 1)
    ]


def scores(f1: float) -> dict[str, Any]:
    return {"f1": f1, "em": f1, "by_hops": {"1": {"f1": f1}, "2": {"f1": f1 / 2}}}


def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    figures: list[Any] = []
    save = plots._save
    monkeypatch.setattr(plots, "_save", lambda figure, *rest: (figures.append(figure), save(figure, *rest))[1])
    return figures


def test_png_and_svg_are_written(tmp_path: Path) -> None:
    files = [
        *plot_training([run()], tmp_path),
        *plot_comparison({"before": scores(0.1), "after": scores(0.8)}, tmp_path),
    ]
    assert [file.name for file in files] == ["training.png", "training.svg", "comparison.png", "comparison.svg"]
    assert all(file.read_bytes().startswith((b"\x89PNG", b"<?xml")) for file in files)


def test_equal_metrics_give_equal_svg(tmp_path: Path) -> None:
    first, second = (plot_training([run()], tmp_path / name)[1].read_bytes() for name in ("one", "two"))
    assert first == second


def test_the_curve_is_the_metric_and_the_stage_boundary_is_marked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figures = drawn(monkeypatch)
    plot_training([run()], tmp_path)
    curve, boundary = figures[0].axes[0].lines
    assert list(curve.get_xdata()) == [1, 2, 3, 4, 5, 6]
    assert list(curve.get_ydata()) == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert list(boundary.get_xdata()) == [2.5, 2.5]


def test_several_runs_are_a_mean_with_a_band(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = drawn(monkeypatch)
    plot_training([run(0.0), run(0.2, steps=4)], tmp_path)
    axes = figures[0].axes[0]
    assert list(axes.lines[0].get_ydata()) == pytest.approx([0.2, 0.3, 0.4, 0.5, 0.5, 0.6])
    corners = axes.collections[0].get_paths()[0].vertices
    assert np.isclose(corners, [1, 0.1]).all(axis=1).any()
    assert np.isclose(corners, [1, 0.3]).all(axis=1).any()


def test_a_metric_that_is_missing_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = drawn(monkeypatch)
    plot_training([[{**row, "kl": None} for row in run()]], tmp_path)
    labels = [line.get_label() for line in figures[0].axes[5].lines]
    assert "entropy (nats per token)" in labels
    assert not any("KL" in str(label) for label in labels)


def test_arms_share_the_axes_each_with_the_band_of_its_seeds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = drawn(monkeypatch)
    supervised = [[{"step": 1, "stage": "epoch1", "loss": 0.5}]]
    files = plot_arms({"grpo": [run(0.0), run(0.2)], "rloo": [run(0.5)], "sft": supervised}, tmp_path)
    assert [file.name for file in files] == ["training.png", "training.svg"]
    for axes in figures[0].axes[:3]:
        one, other = axes.lines
        assert (one.get_label(), other.get_label()) == ("grpo", "rloo") and one.get_color() != other.get_color()
        assert list(one.get_ydata()) == pytest.approx([0.2, 0.3, 0.4, 0.5, 0.6, 0.7])
        assert len(axes.collections) == 1, "one seed has no band"
    assert plot_arms({"sft": supervised}, tmp_path / "none") == []


def test_no_steps_give_no_plot(tmp_path: Path) -> None:
    assert plot_training([[]], tmp_path / "plots") == []
    assert not (tmp_path / "plots").exists()


def test_the_bars_are_the_scores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures = drawn(monkeypatch)
    plot_comparison({"rag_after": scores(0.3), "before": scores(0.1), "after": scores(0.8)}, tmp_path)
    left, right = figures[0].axes
    assert [bar.get_height() for bar in left.containers[0]] == [0.1, 0.3, 0.8]
    assert [bar.get_height() for bar in right.containers[1]] == [0.8, 0.4]

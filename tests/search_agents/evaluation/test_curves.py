"""Curves: the mean and the band of several runs are what NumPy says, and what was not measured is not drawn."""

from __future__ import annotations

import numpy as np
import pytest
from search_agents.evaluation.curves import make_band, panels_of, stage_bounds

from .conftest import metrics_row


def test_the_band_is_the_mean_the_lowest_and_the_highest_of_the_runs_to_the_digit() -> None:
    values = np.random.default_rng(7).normal(size=(5, 40))
    runs = [[metrics_row(step, reward=float(value)) for step, value in enumerate(run, 1)] for run in values]
    band = make_band(runs, "reward")
    assert band.steps == list(range(1, 41))
    np.testing.assert_array_equal(band.mean, values.mean(axis=0))
    np.testing.assert_array_equal(band.low, values.min(axis=0))
    np.testing.assert_array_equal(band.high, values.max(axis=0))
    assert band.runs == [5] * 40


def test_a_step_counts_the_runs_that_have_measured_it() -> None:
    long = [metrics_row(step, reward=1.0) for step in (1, 2, 3)]
    short = [metrics_row(1, reward=3.0), metrics_row(2, reward=None)]
    band = make_band([long, short], "reward")
    assert (band.steps, band.mean, band.low, band.high) == ([1, 2, 3], [2.0, 1.0, 1.0], [1.0] * 3, [3.0, 1.0, 1.0])
    assert band.runs == [2, 1, 1]


def test_a_step_that_no_run_has_measured_is_left_out() -> None:
    assert make_band([[metrics_row(1), metrics_row(2, kl=None), metrics_row(3)]], "kl").steps == [1, 3]
    assert make_band([[metrics_row(1)]], "never").steps == []


def test_a_run_without_kl_has_no_panel_of_it() -> None:
    with_kl, without = [metrics_row(1)], [metrics_row(1, kl=None)]
    assert "KL" in [panel.title for panel in panels_of([with_kl])]
    assert "KL" not in [panel.title for panel in panels_of([without])]
    (kl,) = (panel for panel in panels_of([[metrics_row(1, kl=None, reference_kl=0.1)]]) if panel.title == "KL")
    assert kl.curves == (("reference_kl", "KL to the reference model"),)


def test_every_curve_of_the_paper_has_a_panel() -> None:
    keys = {key for panel in panels_of([[metrics_row(1)]]) for key, _ in panel.curves}
    wanted = {"reward", "f1", "searches_per_question", "response_tokens", "kl", "entropy", "format_rate"}
    assert wanted <= keys


def test_supervised_training_is_drawn_as_what_it_is() -> None:
    row = {"step": 1, "stage": "epoch1", "loss": 1.0, "entropy": 2.0, "grad_norm": 3.0, "trained_tokens": 9.0}
    assert [panel.title for panel in panels_of([[row]])] == ["Loss", "Entropy", "Gradient"]


@pytest.mark.parametrize("runs", [[], [[]], [[{"step": 1, "stage": "s", "reward": None}]]])
def test_nothing_measured_is_no_panel(runs: list[list[dict[str, object]]]) -> None:
    assert panels_of(runs) == []


def test_a_stage_ends_between_two_steps() -> None:
    run = [metrics_row(1), metrics_row(2), metrics_row(3, "stage2"), metrics_row(4, "stage2")]
    assert stage_bounds(run) == [(2.5, "stage2")]

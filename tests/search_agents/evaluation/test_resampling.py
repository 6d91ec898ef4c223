"""Intervals and tests: the right distribution, the same every time, and no more sure than the data allow."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from search_agents.evaluation import resampling
from search_agents.evaluation.resampling import interval, paired_difference


def drawn_one_by_one(values: np.ndarray) -> np.ndarray:
    """The bootstrap as it is defined: whole resamples of the values."""
    rng = np.random.default_rng(7)
    return np.quantile(values[rng.integers(0, len(values), size=(20_000, len(values)))].mean(axis=1), [0.025, 0.975])


@pytest.mark.parametrize("kind", ["right or wrong", "f1", "continuous"])
def test_an_interval_is_that_of_resampling_the_questions(kind: str) -> None:
    rng = np.random.default_rng(1)
    values = {
        "right or wrong": rng.random(300) < 0.6,
        "f1": rng.choice([0.0, 0.4, 0.5, 2 / 3, 0.8, 1.0], size=300),
        "continuous": rng.random(300),
    }[kind].astype(float)
    low, high = interval(values.tolist())
    assert low < values.mean() < high
    assert [low, high] == pytest.approx(drawn_one_by_one(values).tolist(), abs=0.004)


def test_the_interval_of_a_share_is_close_to_the_binomials() -> None:
    low, high = interval([1.0] * 290 + [0.0] * 210)
    spread = 1.96 * (0.58 * 0.42 / 500) ** 0.5
    assert (low, high) == (pytest.approx(0.58 - spread, abs=0.004), pytest.approx(0.58 + spread, abs=0.004))


def test_an_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    samples = (rng.random((60, 200)) < 0.3).astype(float)
    covered = sum(low <= 0.3 <= high for low, high in (interval(sample.tolist()) for sample in samples))
    assert 52 <= covered <= 60


def test_what_is_drawn_depends_on_the_seed_only_and_not_on_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    values = [0.0, 1.0, 0.51, 1.0, 0.0, 0.253, 0.7, 0.11] * 5
    assert interval(values) == interval(values[::-1]) == interval(values)
    assert interval(values, seed=1) != interval(values)
    whole = interval(values)
    monkeypatch.setattr(resampling, "_CHUNK", 40)
    assert interval(values) == whole


def test_one_value_has_no_spread() -> None:
    assert interval([1.0] * 50) == [1.0, 1.0]
    assert interval([0.3]) == [pytest.approx(0.3)] * 2


def test_the_p_value_is_that_of_all_signs() -> None:
    a, b = [0.0, 0.2, 0.5, 0.0, 1.0, 0.4, 0.1], [0.5, 0.2, 1.0, 0.3, 0.9, 1.0, 0.6]
    differences = np.subtract(b, a)
    flips = np.array(list(itertools.product([-1, 1], repeat=len(a)))) @ differences
    exact = np.mean(np.abs(flips) >= abs(differences.sum()) - 1e-9)
    assert paired_difference(a, b).p_value == pytest.approx(exact, abs=0.01)


def test_runs_that_are_the_same_differ_in_nothing() -> None:
    found = paired_difference([0.0, 1.0, 0.5], [0.0, 1.0, 0.5])
    assert (found.difference, found.low, found.high, found.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_pairing_sees_what_the_spread_of_the_questions_hides() -> None:
    rng = np.random.default_rng(2)
    a = rng.random(200)
    b = np.minimum(1.0, a + 0.03)
    (low_a, high_a), (low_b, _) = interval(a.tolist()), interval(b.tolist())
    assert low_a < low_b < high_a, "unpaired, the two overlap"
    found = paired_difference(a.tolist(), b.tolist())
    assert found.low > 0 and found.p_value == pytest.approx(1 / (1 + resampling.RESAMPLES))
    assert (found.n, found.difference) == (200, pytest.approx(b.mean() - a.mean()))


def test_pairs_must_be_pairs() -> None:
    with pytest.raises(ValueError, match="shorter"):
        paired_difference([0.0, 1.0], [0.0])

"""How sure a mean is: bootstrap intervals, and tests of two runs on the same questions.

Everything is drawn anew by the same seed, so the same scores have the same interval
wherever they are computed. Metrics take few distinct values, and how often each of them
is drawn is all that a mean needs to know: drawing those counts has exactly the
distribution of drawing questions, and its cost does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["RESAMPLES", "Difference", "interval", "paired_difference"]

RESAMPLES = 10_000
_LEVEL = 0.95
_CHUNK = 1 << 22

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One metric of two runs, A and B, on the same questions."""

    n: int
    """Number of questions."""
    a: float
    """Mean of A."""
    b: float
    """Mean of B."""
    difference: float
    """Mean of B minus mean of A."""
    low: float
    """Lower end of the 95 % interval of the difference."""
    high: float
    """Upper end."""
    p_value: float
    """How often a difference this far from 0 comes up if, question by question, it is chance which run is which."""


def interval(values: Sequence[float], *, seed: int = 0) -> list[float]:
    """The 95 % interval of a mean: percentiles of the means of 10,000 resamples (Efron 1979).

    Args:
        values: One a question, at least one.
        seed: Of the draws.

    Returns:
        Its lower and its upper end.
    """
    ends = np.quantile(_resampled_means(np.asarray(values, dtype=float), seed), [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return [float(end) for end in ends]


def paired_difference(a: Sequence[float], b: Sequence[float], *, seed: int = 0) -> Difference:
    """Compare two runs question by question.

    The interval is that of the mean difference over resampled questions. The p-value is that of the two-sided
    permutation test: under its null hypothesis every question's difference may as well have the other sign. The
    observed assignment counts as one of the permutations, so that no p-value is 0.

    Args:
        a: The values of A, one a question, at least one.
        b: Those of B, in the same order.
        seed: Of the draws.

    Raises:
        ValueError: If the numbers of values differ.
    """
    differences = np.asarray([right - left for left, right in zip(a, b, strict=True)], dtype=float)
    low, high = interval(differences.tolist(), seed=seed)
    return Difference(
        n=len(differences),
        a=float(np.mean(a)),
        b=float(np.mean(b)),
        difference=float(differences.mean()),
        low=low,
        high=high,
        p_value=_permutation_p_value(differences, seed),
    )


def _resampled_means(values: Floats, seed: int) -> Floats:
    """The means of the resamples, [RESAMPLES]."""
    rng = np.random.default_rng(seed)
    distinct, counts = np.unique(values, return_counts=True)
    share = counts / len(values)
    draws = [rng.multinomial(len(values), share, size=size) @ distinct for size in _chunks(len(distinct))]
    return np.concatenate(draws) / len(values)


def _permutation_p_value(differences: Floats, seed: int) -> float:
    rng = np.random.default_rng(seed)
    distinct, counts = np.unique(np.abs(differences), return_counts=True)
    # Of the questions with one size of difference, a binomial number keep its sign.
    sums = [
        (2 * rng.binomial(counts, 0.5, size=(size, len(counts))) - counts) @ distinct for size in _chunks(len(distinct))
    ]
    # Sums that are equal but for rounding are equal.
    as_far = np.abs(np.concatenate(sums)) >= abs(differences.sum()) - 1e-9
    return float((1 + as_far.sum()) / (1 + RESAMPLES))


def _chunks(width: int) -> Iterator[int]:
    """Numbers of resamples that add up to all, few enough at a time to fit into memory."""
    size = max(1, _CHUNK // width)
    for start in range(0, RESAMPLES, size):
        yield min(size, RESAMPLES - start)

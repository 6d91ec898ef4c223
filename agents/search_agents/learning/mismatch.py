"""Importance weights for what the engine that samples and the learner that trains compute differently.

Let mu be the probability with which the engine drew a token, and pi_old that of the
learner on the same weights. They differ by kernels and number formats. Without a
correction mu is taken for pi_old, so the clipped ratio pi / mu holds both the mismatch and
the policy's own change. With one, the learner computes pi_old first (one forward pass more),
the ratio is pi / pi_old, and the loss of each token is weighted by w = pi_old / mu. Where
batches are sampled ahead, mu is also that of older weights, and w holds their age as well
(see `search_agents.learning.pipelining`)::

    truncated   min(w, C)                      TIS: Yao et al., "Your efficient RL framework secretly brings
                                               you off-policy RL training" (2025), C = 2
    masked      w if 1/C <= w <= C else 0      IcePop: arXiv 2510.18855

No gradient flows through w, and it is never negative, so it can be multiplied into the
advantage: min(r A, clip(r) A) w = min(r (w A), clip(r) (w A)).
"""

from __future__ import annotations

from enum import StrEnum

import numpy as np
import numpy.typing as npt

__all__ = ["Mismatch", "importance_weights"]

_LOG_LIMIT = 20.0  # beyond it the exponential says no more than "far too much"


class Mismatch(StrEnum):
    """What is done about the mismatch; see the module's docstring."""

    IGNORED = "ignored"
    """Nothing: the log-probs of the sampling are those of the old policy."""
    TRUNCATED = "truncated"
    """Weights, cut at the cap."""
    MASKED = "masked"
    """Weights, and none for tokens beyond the cap."""


def importance_weights(
    logprobs: npt.NDArray[np.floating], sampled: npt.NDArray[np.floating], *, mismatch: Mismatch, cap: float
) -> npt.NDArray[np.float64]:
    """The weight of each token.

    Args:
        logprobs: log pi_old, by the learner, [T].
        sampled: log mu, by the engine, [T].
        mismatch: What is done.
        cap: C, above 1.

    Returns:
        w, [T].
    """
    if mismatch is Mismatch.IGNORED:
        return np.ones(len(logprobs))
    difference = logprobs.astype(np.float64) - sampled.astype(np.float64)
    weights: npt.NDArray[np.float64] = np.exp(difference.clip(-_LOG_LIMIT, _LOG_LIMIT))
    if mismatch is Mismatch.TRUNCATED:
        return np.minimum(weights, cap)
    return np.where((weights >= 1 / cap) & (weights <= cap), weights, 0.0)

"""How the losses of single tokens become the loss of a minibatch.

With B episodes that have sampled tokens, n of them in an episode, N in all::

    token       1/N  sum over all tokens                        DAPO, arXiv 2503.14476; REINFORCE++
    sequence    1/B  sum over episodes of 1/n sum over tokens   GRPO, arXiv 2402.03300; GSPO, arXiv 2507.18071
    constant    1/(B L)  sum over all tokens                    Dr. GRPO, arXiv 2503.20783; L the most tokens

The driver turns this into one weight an episode, relative to the token mean, so learners
and micro-batches add up the same sum however the minibatch is cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import numpy as np
import numpy.typing as npt

__all__ = ["Aggregation", "episode_weights"]


class Aggregation(StrEnum):
    """What is averaged; see the module's docstring."""

    TOKEN = "token"
    """All tokens of the minibatch weigh the same: long episodes weigh more."""
    SEQUENCE = "sequence"
    """All episodes weigh the same: tokens of long episodes weigh less."""
    CONSTANT = "constant"
    """A sum over tokens, divided by a constant: no episode's length changes the weight of a token."""


def episode_weights(counts: Sequence[int], aggregation: Aggregation, *, max_tokens: int) -> npt.NDArray[np.float32]:
    """Weight of each token of an episode relative to the mean over all tokens.

    Args:
        counts: Sampled tokens of each episode of a minibatch, [rows].
        aggregation: What is averaged.
        max_tokens: L, for `Aggregation.CONSTANT`.

    Returns:
        N w, [rows], if the loss is the sum of w times the loss of each token; exactly 1 for the token mean.
    """
    sampled = np.asarray(counts, dtype=np.float64)
    total, episodes = float(sampled.sum()), max(1, int((sampled > 0).sum()))
    if aggregation is Aggregation.TOKEN:
        weights = np.ones_like(sampled)
    elif aggregation is Aggregation.SEQUENCE:
        weights = total / (episodes * np.maximum(sampled, 1))
    else:
        weights = np.full_like(sampled, total / (episodes * max_tokens))
    return weights.astype(np.float32)

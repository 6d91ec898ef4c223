"""Advantages of Reinforce++ in NumPy, for a whole rollout batch at once.

They are computed on the driver, before the batch is cut into minibatches or spread
over learners, so the normalisation is over every sampled token of the batch, whatever
the number of learners.

Only sampled tokens count. A return runs *through* the observations between them: a
query is credited with the answer that its documents led to, and neither resets nor
adds anything at a document token.

Formulas (REINFORCE++, arXiv 2501.03262), with m = 1 at sampled tokens and 0 elsewhere::

    r_t = [t is the last sampled token] clip(R, ±10) - kl_coef * clip(log pi_old - log pi_ref, ±10)
    G_t = m_t * sum over u >= t of m_u r_u                                 (no discount)
    A_t = (G_t - mean) / sqrt(max(variance, 1e-8)),   mean and biased variance over all m = 1

`Advantage.REINFORCE_PP_BASELINE` replaces R by R minus the mean R of its group first.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

import numpy as np
import numpy.typing as npt

__all__ = ["Advantage", "compute_advantages", "group_baseline", "normalise", "returns_to_go", "token_rewards"]

REWARD_CLIP = 10.0
KL_CLIP = 10.0
VARIANCE_FLOOR = 1e-8

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


class Advantage(StrEnum):
    """The advantage estimator."""

    REINFORCE_PP = "reinforce++"
    """Returns, normalised over the batch."""
    REINFORCE_PP_BASELINE = "reinforce++-baseline"
    """The group's mean reward is subtracted first."""


def compute_advantages(
    rewards: Sequence[float],
    masks: Sequence[Mask],
    *,
    estimator: Advantage,
    groups: Sequence[int],
    log_ratios: Sequence[npt.NDArray[np.floating]] | None = None,
    kl_coef: float = 0.0,
) -> list[npt.NDArray[np.float32]]:
    """Compute the advantage of every token of a rollout batch.

    Args:
        rewards: Reward R of each episode, [N].
        masks: True at the sampled tokens of each episode, N arrays [T].
        estimator: Which advantage.
        groups: Episodes of the same number answer the same question, [N].
        log_ratios: log pi_old - log pi_ref of each token, N arrays [T]; what they hold at tokens that were not
            sampled is ignored. None stands for 0.
        kl_coef: Weight of the KL penalty in the reward.

    Returns:
        N arrays [T]; 0 at tokens that were not sampled.
    """
    scores = np.asarray(rewards, dtype=np.float64)
    if estimator is Advantage.REINFORCE_PP_BASELINE:
        scores = scores - group_baseline(scores, groups)
    ratios = log_ratios if log_ratios is not None else [np.zeros(len(mask)) for mask in masks]
    returns = [
        returns_to_go(token_rewards(score, mask, ratio, kl_coef=kl_coef), mask)
        for score, mask, ratio in zip(scores, masks, ratios, strict=True)
    ]
    return normalise(returns, masks)


def group_baseline(rewards: Floats, groups: Sequence[int]) -> Floats:
    """The mean reward of each episode's group, [N]."""
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    means = np.bincount(index, weights=rewards) / np.bincount(index)
    return np.asarray(means[index], dtype=np.float64)


def token_rewards(reward: float, mask: Mask, log_ratio: npt.NDArray[np.floating], *, kl_coef: float) -> Floats:
    """Spread an episode's reward over its tokens.

    Args:
        reward: R, put on the last sampled token.
        mask: True at sampled tokens, [T].
        log_ratio: log pi_old - log pi_ref, the k1 estimate of the KL of each token, [T].
        kl_coef: Its weight.

    Returns:
        r, [T]; 0 at tokens that were not sampled.
    """
    penalty = kl_coef * np.clip(log_ratio.astype(np.float64), -KL_CLIP, KL_CLIP)
    rewards = np.where(mask, -penalty, 0.0)
    sampled = np.flatnonzero(mask)
    if sampled.size:
        rewards[sampled[-1]] += np.clip(reward, -REWARD_CLIP, REWARD_CLIP)
    return rewards


def returns_to_go(rewards: Floats, mask: Mask) -> Floats:
    """Sum the rewards from each sampled token to the end of its episode, through observations.

    Args:
        rewards: r, [T].
        mask: True at sampled tokens, [T].

    Returns:
        G, [T]; 0 at tokens that were not sampled.
    """
    to_go = np.cumsum(np.where(mask, rewards, 0.0)[::-1])[::-1]
    return np.where(mask, to_go, 0.0)


def normalise(returns: Sequence[Floats], masks: Sequence[Mask]) -> list[npt.NDArray[np.float32]]:
    """Shift and scale returns to mean 0 and variance 1 over all sampled tokens of the batch.

    Args:
        returns: G, N arrays [T].
        masks: True at sampled tokens, N arrays [T].

    Returns:
        A, N arrays [T]; 0 at tokens that were not sampled.
    """
    sampled = np.concatenate([values[mask] for values, mask in zip(returns, masks, strict=True)])
    if not sampled.size:
        return [np.zeros(len(values), dtype=np.float32) for values in returns]
    scale = np.sqrt(max(sampled.var(), VARIANCE_FLOOR))
    centre = sampled.mean()
    return [
        np.where(mask, (values - centre) / scale, 0.0).astype(np.float32)
        for values, mask in zip(returns, masks, strict=True)
    ]

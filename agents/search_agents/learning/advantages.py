"""Advantages in NumPy, for a whole rollout batch at once.

They are computed on the driver, before the batch is cut into minibatches or spread
over learners, so the normalisation is over every sampled token of the batch, whatever
the number of learners.

Only sampled tokens count. A return runs *through* the observations between them: a
query is credited with the answer that its documents led to, and neither resets nor
adds anything at a document token.

Let R be the reward of an episode, n, mean and std those of its group (std with n - 1),
and m = 1 at sampled tokens and 0 elsewhere. The score S of the episode is::

    reinforce++             S = clip(R, ±10)                        REINFORCE++, arXiv 2501.03262
    reinforce++-baseline    S = clip(R - mean, ±10)                 the same paper
    grpo                    S = (R - mean) / (std + 1e-6)           DeepSeekMath, arXiv 2402.03300
    dr-grpo                 S = R - mean                            Dr. GRPO, arXiv 2503.20783
    rloo                    S = R - (mean R of the n - 1 others)    RLOO, arXiv 2402.14740

and of all alike, without a discount::

    r_t = [t is the last sampled token] S - kl_coef * kl(clip(log pi_old - log pi_ref, ±10))
    G_t = m_t * sum over u >= t of m_u r_u

The two of REINFORCE++ are normalised; of the others A = G::

    A_t = (G_t - mean) / sqrt(max(variance, 1e-8)),   mean and biased variance over all m = 1
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "Advantage",
    "KLEstimator",
    "compute_advantages",
    "episode_scores",
    "group_baseline",
    "kl_estimate",
    "normalise",
    "returns_to_go",
    "token_rewards",
]

REWARD_CLIP = 10.0
KL_CLIP = 10.0
VARIANCE_FLOOR = 1e-8
STD_FLOOR = 1e-6

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


class Advantage(StrEnum):
    """The advantage estimator; see the module's docstring."""

    REINFORCE_PP = "reinforce++"
    """Returns, normalised over the batch."""
    REINFORCE_PP_BASELINE = "reinforce++-baseline"
    """The group's mean reward is subtracted first."""
    GRPO = "grpo"
    """Rewards, normalised within their group."""
    DR_GRPO = "dr-grpo"
    """The group's mean reward is subtracted, and nothing divided."""
    RLOO = "rloo"
    """The mean reward of the group's other episodes is subtracted."""

    @property
    def needs_groups(self) -> bool:
        """Whether an episode is compared with others of its question."""
        return self is not Advantage.REINFORCE_PP

    @property
    def normalises(self) -> bool:
        """Whether the returns are normalised over the batch."""
        return self in (Advantage.REINFORCE_PP, Advantage.REINFORCE_PP_BASELINE)


class KLEstimator(StrEnum):
    """Estimates the KL from a policy to the reference at a token that it sampled, by D = log pi - log pi_ref.

    The names are those of J. Schulman, "Approximating KL divergence" (2020).
    """

    K1 = "k1"
    """D: unbiased, of either sign."""
    K2 = "k2"
    """D^2 / 2: biased, never negative; as a loss its gradient is that of the KL itself."""
    K3 = "k3"
    """exp(-D) - 1 + D: unbiased and never negative."""


def kl_estimate(log_ratio: Any, estimator: KLEstimator, *, exp: Callable[[Any], Any] = np.exp) -> Any:
    """Estimate the KL at each token.

    Args:
        log_ratio: log pi - log pi_ref, an array or a tensor.
        estimator: How.
        exp: The exponential of that kind.

    Returns:
        As many estimates.
    """
    clipped = log_ratio.clip(-KL_CLIP, KL_CLIP)
    if estimator is KLEstimator.K1:
        return clipped
    return clipped**2 / 2 if estimator is KLEstimator.K2 else exp(-clipped) - 1 + clipped


def compute_advantages(
    rewards: Sequence[float],
    masks: Sequence[Mask],
    *,
    estimator: Advantage,
    groups: Sequence[int],
    log_ratios: Sequence[npt.NDArray[np.floating]] | None = None,
    kl_coef: float = 0.0,
    kl_estimator: KLEstimator = KLEstimator.K1,
) -> list[npt.NDArray[np.float32]]:
    """Compute the advantage of every token of a rollout batch.

    Args:
        rewards: Reward R of each episode, [N].
        masks: True at the sampled tokens of each episode that are trained on, N arrays [T].
        estimator: Which advantage.
        groups: Episodes of the same number answer the same question, [N].
        log_ratios: log pi_old - log pi_ref of each token, N arrays [T]; what they hold at tokens that were not
            sampled is ignored. None stands for 0.
        kl_coef: Weight of the KL penalty in the reward.
        kl_estimator: Of that KL.

    Returns:
        N arrays [T]; 0 at tokens that were not sampled.
    """
    scores = episode_scores(np.asarray(rewards, dtype=np.float64), groups, estimator)
    ratios = log_ratios if log_ratios is not None else [np.zeros(len(mask)) for mask in masks]
    returns = [
        returns_to_go(token_rewards(score, mask, ratio, kl_coef=kl_coef, kl_estimator=kl_estimator), mask)
        for score, mask, ratio in zip(scores, masks, ratios, strict=True)
    ]
    return normalise(returns, masks) if estimator.normalises else [values.astype(np.float32) for values in returns]


def episode_scores(rewards: Floats, groups: Sequence[int], estimator: Advantage) -> Floats:
    """The score S of each episode; see the module's docstring.

    Args:
        rewards: R, [N].
        groups: Episodes of the same number answer the same question, [N].
        estimator: Which advantage.

    Returns:
        S, [N]; 0 in a group of one wherever episodes of a group are compared.
    """
    if not estimator.needs_groups:
        return rewards.clip(-REWARD_CLIP, REWARD_CLIP)
    scores = rewards - group_baseline(rewards, groups)
    if estimator is Advantage.REINFORCE_PP_BASELINE:
        return scores.clip(-REWARD_CLIP, REWARD_CLIP)
    _, index, sizes = np.unique(np.asarray(groups), return_inverse=True, return_counts=True)
    others = np.maximum(sizes - 1, 1)
    if estimator is Advantage.GRPO:
        std = np.sqrt(np.bincount(index, weights=scores**2) / others)
        return np.asarray(scores / (std[index] + STD_FLOOR))
    # R - sum of the others / (n - 1) = n / (n - 1) (R - mean)
    return scores * (sizes / others)[index] if estimator is Advantage.RLOO else scores


def group_baseline(rewards: Floats, groups: Sequence[int]) -> Floats:
    """The mean reward of each episode's group, [N]."""
    _, index = np.unique(np.asarray(groups), return_inverse=True)
    means = np.bincount(index, weights=rewards) / np.bincount(index)
    return np.asarray(means[index], dtype=np.float64)


def token_rewards(
    score: float,
    mask: Mask,
    log_ratio: npt.NDArray[np.floating],
    *,
    kl_coef: float,
    kl_estimator: KLEstimator = KLEstimator.K1,
) -> Floats:
    """Spread an episode's score over its tokens.

    Args:
        score: S, put on the last sampled token.
        mask: True at sampled tokens, [T].
        log_ratio: log pi_old - log pi_ref of each token, [T].
        kl_coef: Weight of the KL that is estimated by it.
        kl_estimator: How it is estimated.

    Returns:
        r, [T]; 0 at tokens that were not sampled.
    """
    penalty = kl_coef * kl_estimate(log_ratio.astype(np.float64), kl_estimator)
    rewards = np.where(mask, -penalty, 0.0)
    sampled = np.flatnonzero(mask)
    if sampled.size:
        rewards[sampled[-1]] += score
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

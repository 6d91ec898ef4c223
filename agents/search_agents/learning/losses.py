"""The losses, token by token: policy losses by ratio, the KL to the reference, and the likelihood loss of SFT.

All see sampled tokens only: the module never computes a log-prob for a token that the
environment wrote, so no gradient can flow from one.

Sums are divided by a number of tokens that the caller gives: that of the whole
minibatch, over all micro-batches and learners. Adding up the parts then gives the loss
of the minibatch exactly, however it was cut. What is averaged instead of tokens is in
the weights; see `search_agents.learning.aggregation`.

With r_t = pi(t) / pi_old(t), n the sampled tokens of the episode and sg the stop of gradients,
the loss of a token with advantage A is::

    ppo     - min(r A, clip(r, 1 - clip, 1 + clip_high) A)                  PPO, arXiv 1707.06347; clip_high > clip
                                                                            is DAPO's clip-higher, arXiv 2503.14476
    gspo    the same with s_t = sg(exp(mean over the episode of log r)) pi(t) / sg(pi(t)) instead of r
                                                                            GSPO-token, arXiv 2507.18071, eq. 14; GSPO
                                                                            where A is the same at all tokens
    cispo   - sg(min(r, 1 + clip_high)) A log pi(t)                         MiniMax-M1, arXiv 2506.13585
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

import torch

from search_agents.learning.advantages import KLEstimator, kl_estimate

__all__ = ["Objective", "PolicyLoss", "kl_loss", "negative_log_likelihood", "policy_loss"]


class Objective(StrEnum):
    """What is made of ratio and advantage; see the module's docstring."""

    PPO = "ppo"
    """The ratio of each token, clipped."""
    GSPO = "gspo"
    """The ratio of the whole episode, clipped."""
    CISPO = "cispo"
    """REINFORCE with each token weighted by its truncated ratio: no token loses its gradient."""


class PolicyLoss(NamedTuple):
    """The loss and what is reported with it; each a scalar, a sum over tokens divided by `num_tokens`."""

    loss: torch.Tensor
    """The weighted loss; the only entry with a gradient."""
    kl: torch.Tensor
    """KL from the policy that sampled to the policy now, estimated as r - 1 - log r."""
    clip_fraction: torch.Tensor
    """Share of tokens where the clip decides."""


def policy_loss(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    *,
    clip: float,
    num_tokens: torch.Tensor | float,
    clip_high: float | None = None,
    objective: Objective = Objective.PPO,
    counts: torch.Tensor | None = None,
    weights: torch.Tensor | None = None,
) -> PolicyLoss:
    """Compute the part of the policy loss that these tokens contribute.

    Args:
        logprobs: Log-probs of the sampled tokens under the policy that is trained, [N].
        old_logprobs: Under the policy when it sampled them, [N].
        advantages: A, [N].
        clip: How far the ratio counts below 1.
        num_tokens: Sampled tokens of the whole minibatch.
        clip_high: How far it counts above 1; None for as far as below.
        objective: Which loss.
        counts: Sampled tokens of each episode, in order, [episodes]; None for a single episode.
        weights: Of each token, relative to the token mean, [N]; None for 1.

    Returns:
        The loss and its metrics.
    """
    log_ratio = logprobs - old_logprobs
    ratio = log_ratio.exp()
    high = 1.0 + (clip if clip_high is None else clip_high)
    if objective is Objective.CISPO:
        decided = ratio > high
        terms = ratio.detach().clamp(max=high) * advantages * logprobs
    else:
        trusted = _episode_ratio(logprobs, log_ratio, counts) if objective is Objective.GSPO else ratio
        unclipped, clipped = trusted * advantages, trusted.clamp(1.0 - clip, high) * advantages
        decided = clipped < unclipped
        terms = torch.minimum(unclipped, clipped)
    loss = -(terms if weights is None else terms * weights).sum() / num_tokens
    with torch.no_grad():
        kl = (ratio - 1.0 - log_ratio).sum() / num_tokens
        clip_fraction = decided.sum() / num_tokens
    return PolicyLoss(loss, kl, clip_fraction)


def _episode_ratio(logprobs: torch.Tensor, log_ratio: torch.Tensor, counts: torch.Tensor | None) -> torch.Tensor:
    """The s of GSPO-token: of its episode in value, of the token itself in gradient, [N]."""
    if counts is None:
        counts = torch.tensor([len(logprobs)], device=logprobs.device)
    sums = log_ratio.new_zeros(len(counts))
    episodes = torch.arange(len(counts), device=logprobs.device).repeat_interleave(counts)
    means = sums.index_add(0, episodes, log_ratio.detach()) / counts.clamp(min=1)
    return (logprobs - logprobs.detach() + means[episodes]).exp()


def kl_loss(
    logprobs: torch.Tensor,
    reference_logprobs: torch.Tensor,
    *,
    estimator: KLEstimator,
    num_tokens: torch.Tensor | float,
    weights: torch.Tensor | None = None,
) -> torch.Tensor:
    """Compute the part that these tokens contribute to the KL to the reference, as a loss.

    The gradient of an estimate is not an estimate of the KL's gradient (arXiv 2506.09477): on policy that of k2 is the
    KL's own, that of k3 is the reverse direction's, and that of k1 is 0 on average, so k1 belongs into the reward.

    Args:
        logprobs: Log-probs of the sampled tokens under the policy that is trained, [N].
        reference_logprobs: Under the reference, [N].
        estimator: Of the KL at each token, its log ratio clipped at ±10.
        num_tokens: Sampled tokens of the whole minibatch.
        weights: Of each token, relative to the token mean, [N]; None for 1.

    Returns:
        The weighted sum divided by `num_tokens`, a scalar.
    """
    terms: torch.Tensor = kl_estimate(logprobs - reference_logprobs, estimator, exp=torch.exp)
    return (terms if weights is None else terms * weights).sum() / num_tokens


def negative_log_likelihood(logprobs: torch.Tensor, *, num_tokens: torch.Tensor | float) -> torch.Tensor:
    """Compute the part of the supervised loss that these tokens contribute.

    It is the cross-entropy of imitation with the documents masked (R1-Searcher, section on SFT): documents are read,
    never imitated.

    Args:
        logprobs: Log-probs of the sampled tokens under the policy that is trained, [N].
        num_tokens: Sampled tokens of the whole minibatch.

    Returns:
        - sum of the log-probs divided by `num_tokens`, a scalar.
    """
    return -logprobs.sum() / num_tokens

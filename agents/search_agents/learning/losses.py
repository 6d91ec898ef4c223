"""The losses, token by token: the clipped ratio loss of Reinforce++ and the negative log-likelihood of SFT.

Both see sampled tokens only: the module never computes a log-prob for a
token that the environment wrote, so no gradient can flow from one.

Sums are divided by a number of tokens that the caller gives: that of the whole
minibatch, over all micro-batches and learners. Adding up the parts then gives the loss
of the minibatch exactly, however it was cut.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

__all__ = ["PolicyLoss", "clipped_policy_loss", "negative_log_likelihood"]


class PolicyLoss(NamedTuple):
    """The loss and what is reported with it; each a scalar, a sum over tokens divided by `num_tokens`."""

    loss: torch.Tensor
    """- sum of min(r A, clip(r, 1 - clip, 1 + clip) A); the only entry with a gradient."""
    kl: torch.Tensor
    """KL from the policy that sampled to the policy now, estimated as r - 1 - log r."""
    clip_fraction: torch.Tensor
    """Share of tokens where the clipped branch is the smaller one: those give no gradient."""


def clipped_policy_loss(
    logprobs: torch.Tensor,
    old_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    *,
    clip: float,
    num_tokens: torch.Tensor | float,
) -> PolicyLoss:
    """Compute the part of the policy loss that these tokens contribute.

    Args:
        logprobs: Log-probs of the sampled tokens under the policy that is trained, [N].
        old_logprobs: Under the policy when it sampled them, [N].
        advantages: A, [N].
        clip: Range of the importance ratio r around 1.
        num_tokens: Sampled tokens of the whole minibatch.

    Returns:
        The loss and its metrics.
    """
    log_ratio = logprobs - old_logprobs
    ratio = log_ratio.exp()
    unclipped = ratio * advantages
    clipped = ratio.clamp(1.0 - clip, 1.0 + clip) * advantages
    loss = -torch.minimum(unclipped, clipped).sum() / num_tokens
    with torch.no_grad():
        kl = (ratio - 1.0 - log_ratio).sum() / num_tokens
        clip_fraction = (clipped < unclipped).sum() / num_tokens
    return PolicyLoss(loss, kl, clip_fraction)


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

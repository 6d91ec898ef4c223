"""From the episodes of a step to the rows that are trained on: masks, corrections, KL and advantages.

All of it happens on the driver and over the whole batch, so it does not depend on how
many learners there are.

Invalid episodes never come here: what they would have earned is not known. An overlong
episode, one that was cut before its end, may be left out of the loss; its reward still
counts for the mean of its group, since the policy did earn it.

The environment's tokens are masked: no loss, KL, return or normalisation sees them. The
ablation of that mask (`mask_documents` off) takes them for sampled ones. Nobody drew them,
so their log-probs under the old policy are computed by the learner before the update: its
first importance ratio is then 1, as it is for tokens that were sampled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from search_agents.learning.advantages import Advantage, KLEstimator, compute_advantages
from search_agents.learning.algorithm_config import ReinforcePPConfig
from search_agents.learning.episode_metrics import TRUNCATED
from search_agents.learning.learner_group import EpisodeLearnerGroup, Row
from search_agents.learning.mismatch import Mismatch, importance_weights
from search_agents.rollout import Episode

__all__ = ["prepare_rows"]

Log = Callable[[str, float], Any]
Arrays = list[npt.NDArray[np.float32]]


def prepare_rows(
    episodes: Sequence[Episode], config: ReinforcePPConfig, learners: EpisodeLearnerGroup, log: Log
) -> list[Row]:
    """Make the rows of a step.

    Args:
        episodes: The valid episodes, whole groups.
        config: Of the algorithm.
        learners: Compute log-probs where the configuration has need of them.
        log: Takes a metric and its value.

    Returns:
        One row with advantages for each episode that has a token to train on.
    """
    rows = [_row(episode, mask_overlong=config.mask_overlong) for episode in episodes]
    if not config.mask_documents:
        rows = _with_documents(episodes, rows, learners)
    if not any(row.action_mask.any() for row in rows):
        return []
    rows, weights = _corrected(rows, config, learners, log)
    reference = learners.compute_logprobs(rows, reference=True) if config.kl_coef > 0 else None
    ratios = _log_ratios(rows, reference, log) if reference is not None else None
    advantages = compute_advantages(
        [episode.reward for episode in episodes],
        [row.action_mask for row in rows],
        estimator=Advantage(config.advantage),
        groups=[episode.group for episode in episodes],
        log_ratios=ratios if config.kl_in == "reward" else None,
        kl_coef=config.kl_coef,
        kl_estimator=KLEstimator(config.kl_estimator),
    )
    if weights is not None:
        advantages = [a * w.astype(np.float32) for a, w in zip(advantages, weights, strict=True)]
    kept = reference if config.kl_in == "loss" and reference is not None else [None] * len(rows)
    ready = [
        replace(row, advantages=values, reference_logprobs=logprobs)
        for row, values, logprobs in zip(rows, advantages, kept, strict=True)
    ]
    return [row for row in ready if row.action_mask.any()]


def _row(episode: Episode, *, mask_overlong: bool) -> Row:
    overlong = mask_overlong and episode.stop_reason in TRUNCATED
    mask = np.zeros_like(episode.action_mask) if overlong else episode.action_mask
    return Row(input_ids=episode.token_ids, action_mask=mask, logprobs=episode.logprobs)


def _with_documents(episodes: Sequence[Episode], rows: Sequence[Row], learners: EpisodeLearnerGroup) -> list[Row]:
    """Rows whose environment's tokens count as sampled, at the learner's log-probs; overlong rows stay masked."""
    masks = [
        row.action_mask | episode.observation_mask if row.action_mask.any() else row.action_mask
        for episode, row in zip(episodes, rows, strict=True)
    ]
    unmasked = [replace(row, action_mask=mask) for row, mask in zip(rows, masks, strict=True)]
    if not any(mask.any() for mask in masks):
        return unmasked
    return [
        replace(row, logprobs=np.where(episode.action_mask, row.logprobs, computed))
        for episode, row, computed in zip(episodes, unmasked, learners.compute_logprobs(unmasked), strict=True)
    ]


def _corrected(
    rows: list[Row], config: ReinforcePPConfig, learners: EpisodeLearnerGroup, log: Log
) -> tuple[list[Row], list[npt.NDArray[np.float64]] | None]:
    """Rows with the learner's own log-probs of the old policy, and the weights that make up for the engine's."""
    mismatch = Mismatch(config.mismatch)
    if mismatch is Mismatch.IGNORED:
        return rows, None
    computed = learners.compute_logprobs(rows)
    weights = [
        importance_weights(logprobs, row.logprobs, mismatch=mismatch, cap=config.mismatch_cap)
        for row, logprobs in zip(rows, computed, strict=True)
    ]
    differences = [row.logprobs - logprobs for row, logprobs in zip(rows, computed, strict=True)]
    apart = _sampled(differences, rows)
    log("mismatch_kl", float(apart.mean()))  # k1, from the engine to the learner
    log("mismatch_fraction", float((np.abs(apart) > np.log(config.mismatch_cap)).mean()))
    return [replace(row, logprobs=logprobs) for row, logprobs in zip(rows, computed, strict=True)], weights


def _log_ratios(rows: Sequence[Row], reference: Arrays, log: Log) -> Arrays:
    """Log pi_old - log pi_ref of every token, [T] each."""
    ratios = [row.logprobs - logprobs for row, logprobs in zip(rows, reference, strict=True)]
    log("reference_kl", float(_sampled(ratios, rows).mean()))
    return ratios


def _sampled(values: Sequence[npt.NDArray[Any]], rows: Sequence[Row]) -> npt.NDArray[Any]:
    """What stands at sampled tokens, all episodes in one."""
    return np.concatenate([each[row.action_mask] for each, row in zip(values, rows, strict=True)])

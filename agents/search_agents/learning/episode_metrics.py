"""How the episodes of a step went, in one number each.

Invalid episodes, those whose retriever failed, are counted and left out of everything
else.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from search_agents.rollout import Episode
from search_env.types import StopReason

__all__ = ["TRUNCATED", "episode_metrics", "groups_with_signal", "reward_part_means"]

TRUNCATED = frozenset({StopReason.MAX_SEARCHES, StopReason.MAX_TURNS, StopReason.MAX_CHARS, StopReason.MAX_TOKENS})
"""Stop reasons of an overlong episode: a budget was spent before it came to an end of its own."""


def episode_metrics(episodes: Sequence[Episode]) -> dict[str, float]:
    """Average over the valid episodes.

    Args:
        episodes: Of one step, at least one of them valid.

    Returns:
        ``episode_return_mean`` (of the reward), the answer metrics (``f1``, ``em``, ``cem``), shares of the episodes
        that search, keep the format or are truncated, searches and tokens of an episode, the share of invalid ones,
        and that of groups with signal.
    """
    valid = [episode for episode in episodes if episode.valid]
    searches = np.array([episode.metrics["searches"] for episode in valid])
    return {
        "episode_return_mean": float(np.mean([episode.reward for episode in valid])),
        **{name: float(np.mean([episode.metrics[name] for episode in valid])) for name in ("f1", "em", "cem")},
        "search_rate": float((searches > 0).mean()),
        "format_rate": float(np.mean([episode.metrics["format_ok"] for episode in valid])),
        "searches_per_question": float(searches.mean()),
        "response_tokens": float(np.mean([episode.action_mask.sum() for episode in valid])),
        "episode_tokens": float(np.mean([len(episode.token_ids) for episode in valid])),
        "truncated": float(np.mean([episode.stop_reason in TRUNCATED for episode in valid])),
        "invalid": 1.0 - len(valid) / len(episodes),
        "signal_rate": len(groups_with_signal(episodes)) / len({episode.group for episode in episodes}),
        "num_episodes": float(len(episodes)),
    }


def groups_with_signal(episodes: Sequence[Episode]) -> set[int]:
    """The groups whose valid episodes did not all earn the same: in the others no episode is better than another."""
    rewards: dict[int, set[float]] = {}
    for episode in episodes:
        if episode.valid:
            rewards.setdefault(episode.group, set()).add(episode.reward)
    return {group for group, earned in rewards.items() if len(earned) > 1}


def reward_part_means(episodes: Sequence[Episode]) -> dict[str, float]:
    """The mean of each part of the reward over the valid episodes."""
    valid = [episode.reward_parts for episode in episodes if episode.valid]
    return {name: float(np.mean([parts[name] for parts in valid])) for name in valid[0]}

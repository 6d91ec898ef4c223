"""Rejection sampling: which of the episodes of a question are kept to be imitated.

An episode whose retriever failed is never kept, whatever the rule.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from search_agents.config.sections import KeepSection
from search_agents.rollout import Episode

__all__ = ["choose", "is_right"]


def is_right(episode: Episode, rule: KeepSection) -> bool:
    """Whether an episode may be kept.

    Args:
        episode: A finished episode.
        rule: What is asked of it: the answer's metric, the format and a number of searches, all of them.
    """
    found = episode.metrics
    answered = found[rule.metric] >= rule.at_least
    formatted = not rule.format or bool(found["format_ok"])
    return episode.valid and answered and formatted and found["searches"] >= rule.min_searches


def choose(episodes: Sequence[Episode], rule: KeepSection, *, seed: int) -> list[Episode]:
    """Choose among the episodes of one question.

    Args:
        episodes: All that were sampled for it.
        rule: Which are right, how many of them are kept, and which ones then.
        seed: Decides the draw, where there is one.

    Returns:
        The episodes to keep, in the order in which they were sampled.
    """
    right = [number for number, episode in enumerate(episodes) if is_right(episode, rule)]
    if rule.per_question is None or len(right) <= rule.per_question:
        kept = right
    elif rule.prefer == "shortest":
        kept = sorted(right, key=lambda number: len(episodes[number].token_ids))[: rule.per_question]
    else:
        kept = np.random.default_rng(seed).choice(right, size=rule.per_question, replace=False).tolist()
    return [episodes[number] for number in sorted(kept)]

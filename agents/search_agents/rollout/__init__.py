"""Rollouts: episodes as tokens, and the loops that play them."""

from __future__ import annotations

from search_agents.rollout.asynchronous import collect_async, play, play_each
from search_agents.rollout.collect import Task, collect, derive_seed
from search_agents.rollout.episode import Episode, SegmentKind, TokenSegment

__all__ = [
    "Episode",
    "SegmentKind",
    "Task",
    "TokenSegment",
    "collect",
    "collect_async",
    "derive_seed",
    "play",
    "play_each",
]

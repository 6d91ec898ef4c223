"""Rollouts: episodes as tokens, and the loop that plays them."""

from __future__ import annotations

from search_agents.rollout.collect import Task, collect, derive_seed
from search_agents.rollout.episode import Episode, SegmentKind, TokenSegment

__all__ = ["Episode", "SegmentKind", "Task", "TokenSegment", "collect", "derive_seed"]

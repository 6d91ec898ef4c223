"""Engines: what turns token ids into more token ids.

Only the vocabulary is imported here; `search_agents.engines.transformers` brings torch.
"""

from __future__ import annotations

from search_agents.engines.base import Engine, FinishReason, GenerationSession, SampledSegment, SamplingParams

__all__ = ["Engine", "FinishReason", "GenerationSession", "SampledSegment", "SamplingParams"]

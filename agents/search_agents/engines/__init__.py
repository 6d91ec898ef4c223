"""Engines: language models, here or on a server.

Only the vocabulary is imported here; `search_agents.engines.transformers` brings torch.
"""

from __future__ import annotations

from search_agents.engines.base import (
    Capability,
    Completion,
    Engine,
    FinishReason,
    GenerationRequest,
    GenerationSession,
    NoEngine,
    SampledSegment,
    SamplingParams,
    ScoredText,
    ScoringRequest,
    TokenEngine,
)

__all__ = [
    "Capability",
    "Completion",
    "Engine",
    "FinishReason",
    "GenerationRequest",
    "GenerationSession",
    "NoEngine",
    "SampledSegment",
    "SamplingParams",
    "ScoredText",
    "ScoringRequest",
    "TokenEngine",
]

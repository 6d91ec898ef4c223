"""Engines: language models, here or on a server.

Only the vocabulary is imported here; `search_agents.engines.transformers` and `search_agents.engines.vllm` bring torch.
"""

from __future__ import annotations

from search_agents.engines.base import (
    AsynchronousEngine,
    AsynchronousSession,
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
    "AsynchronousEngine",
    "AsynchronousSession",
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

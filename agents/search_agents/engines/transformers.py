"""The engine of any Hugging Face causal language model, on the device its weights are on.

It generates for many episodes at once over several turns. The model may be shared
with a learner: the engine holds no copy of its weights and leaves it as it found it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from search_agents.engines.base import (
    Capability,
    Completion,
    GenerationRequest,
    ScoredText,
    ScoringRequest,
    check_prompts,
    in_order,
)
from search_agents.engines.codec import TextCodec
from search_agents.engines.generation import generate_in_sessions
from search_agents.engines.prefixes import PrefixCache
from search_agents.engines.pretrained import eos_ids, load_pretrained
from search_agents.engines.scoring import score_texts
from search_agents.engines.session import TransformersSession
from search_env.errors import ModelError
from search_env.types import Prompt

__all__ = ["CACHE_TOKENS", "PREFIX_BYTES", "TransformersEngine"]

CACHE_TOKENS = 65_536
"""Tokens in the key-value cache while texts are generated outside sessions."""
PREFIX_BYTES = 2 << 30
"""Bytes of keys and values that are kept of such texts."""


class TransformersEngine:
    """See `AsynchronousEngine`.

    Args:
        model: A causal language model with full attention in every layer.
        tokenizer: Its tokenizer.
        autocast: Whether to compute in bfloat16 whatever the format of the weights. A learner that does so has an
            engine that samples from the very distribution it trains; prefill of float32 weights is 1.5 times as fast.
        prefill_tokens: The most tokens of one forward pass over prompts and observations, padding included;
            bounds the memory of a turn.
        cache_tokens: The most tokens that are kept in the key-value cache when texts are generated outside sessions.
        prefix_bytes: The most bytes of keys and values that are kept of texts generated outside sessions, for prompts
            that begin alike; new weights make them void.
        name: What the model is called in tables; its own name by default.
        continuous: Whether episodes are played each in its own time; None for all but models on a CPU. There the
            cost of a step grows with its rows, so full batches gain nothing: turns take a tenth less time over an
            index at hand, a third more if a search takes 200 ms (benchmarks/results/continuous.md), and compute the
            same bit for bit in every run.

    Raises:
        ModelError: If the model's attention cannot be computed row by row from one cache.
    """

    capabilities = frozenset(Capability)

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        *,
        autocast: bool = False,
        prefill_tokens: int = 4096,
        cache_tokens: int = CACHE_TOKENS,
        prefix_bytes: int = PREFIX_BYTES,
        name: str | None = None,
        continuous: bool | None = None,
    ) -> None:
        self.name = name or Path(model.name_or_path).name or type(model).__name__
        self.model = model
        self.tokenizer = tokenizer
        self.max_context = _max_context(model)
        self.autocast = autocast
        self._continuous = continuous
        self._prefill_tokens = prefill_tokens
        self._cache_tokens = cache_tokens
        self._prefixes = PrefixCache(prefix_bytes)
        self._read_by: list[float] | None = None  # the weights that computed them, see `_weights`
        self.codec = TextCodec(tokenizer, eos_ids(getattr(model, "generation_config", None), tokenizer))

    @classmethod
    def from_pretrained(
        cls, name_or_path: str | Path, *, dtype: str = "auto", device: str = "cpu", continuous: bool | None = None
    ) -> TransformersEngine:
        """Load a model folder or hub id; see `load_pretrained`."""
        return cls(*load_pretrained(name_or_path, dtype=dtype, device=device), continuous=continuous)

    @property
    def continuous(self) -> bool:
        """Whether episodes are played each in its own time."""
        return bool(self.model.device.type != "cpu") if self._continuous is None else self._continuous

    def encode_prompt(self, prompt: Prompt, *, chat: bool) -> list[int]:
        """Encode the opening of an episode; see `TokenEngine.encode_prompt`."""
        return self.codec.encode_prompt(prompt, chat=chat)

    def encode_observation(self, text: str) -> list[int]:
        """Encode text that the environment wrote; see `TokenEngine.encode_observation`."""
        return self.codec.encode_observation(text)

    def generate(
        self, requests: Sequence[GenerationRequest], *, chat: bool, max_tokens: int
    ) -> list[Completion | None]:
        """Write a text for each request; see `Engine.generate`."""
        return in_order(self.generate_each(requests, chat=chat, max_tokens=max_tokens))

    def generate_each(
        self, requests: Sequence[GenerationRequest], *, chat: bool, max_tokens: int
    ) -> Iterator[tuple[int, Completion | None]]:
        """Write a text for each request, as many at a time as the cache holds; see `StreamingEngine.generate_each`."""
        return generate_in_sessions(
            self, requests, chat=chat, max_tokens=max_tokens, cache_tokens=self._cache_tokens, keep=self._keep
        )

    def score(self, requests: Sequence[ScoringRequest]) -> list[ScoredText | None]:
        """Score texts; see `Engine.score` and `score_texts`."""
        return score_texts(
            self.model,
            self.codec,
            requests,
            max_context=self.max_context,
            batch_tokens=self._prefill_tokens,
            dtype=self._dtype,
        )

    @property
    def _dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.autocast else self.model.dtype

    def open(self, prompts: Sequence[Sequence[int]], *, seeds: Sequence[int], max_tokens: int) -> TransformersSession:
        """Start a row for each prompt; see `TokenEngine.open`."""
        check_prompts(prompts, max_tokens=max_tokens, max_context=self.max_context)
        return TransformersSession(
            self.model,
            self.codec,
            prompts,
            seeds=seeds,
            max_tokens=max_tokens,
            prefill_tokens=self._prefill_tokens,
            dtype=self._dtype,
            prefixes=self._prefixes if self._read_by is not None and self._read_by == _weights(self.model) else None,
        )

    def _keep(self, session: TransformersSession, texts: Sequence[Sequence[int]]) -> None:
        weights = _weights(self.model)
        if self._read_by != weights:
            self._prefixes.clear()
            self._read_by = weights
        session.keep(self._prefixes, texts)


def _weights(model: Any) -> list[float]:
    """One number of each weight: an optimiser or a checkpoint changes some of them.

    The version counters of PyTorch would not do: its fused optimisers leave them as they are.
    """
    return torch.stack([parameter.detach().reshape(-1)[0].float() for parameter in model.parameters()]).tolist()


def _max_context(model: Any) -> int:
    """Number of positions within which every layer sees every earlier token.

    Raises:
        ModelError: If a layer is no attention layer, or attention runs on a kernel that takes no mask of its own.
    """
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ())
    if kinds - {"full_attention", "sliding_attention"} or config._attn_implementation not in ("sdpa", "eager"):
        raise ModelError(
            f"this engine needs attention layers on 'sdpa' or 'eager'; {type(model).__name__} has "
            f"{', '.join(sorted(kinds)) or 'attention'} layers on {config._attn_implementation!r}. "
            "Choose another model, or load it with attn_implementation='sdpa'."
        )
    limits = [getattr(config, "max_position_embeddings", None)]
    if not kinds or "sliding_attention" in kinds:
        limits.append(getattr(config, "sliding_window", None))
    return min((limit for limit in limits if limit), default=1 << 20)

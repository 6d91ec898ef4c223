"""How sure a model is of each token of a text, beside the few tokens that it finds most likely."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from search_agents.engines.base import TokenEngine
from search_env.types import Prompt

__all__ = ["TokenConfidences", "token_confidences"]

_CACHE_TOKENS = 65_536


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenConfidences:
    """Of one text."""

    values: tuple[float, ...]
    """One a token, above 0; empty if the text has no token or does not fit."""
    prompt_tokens: int
    """Tokens that the engine took in, prompt and text."""

    @property
    def mean(self) -> float:
        """Their mean; 0 if there are none."""
        return sum(self.values) / len(self.values) if self.values else 0.0


def token_confidences(
    engine: TokenEngine, requests: Sequence[tuple[Prompt, str]], *, chat: bool, top: int = 5
) -> list[TokenConfidences]:
    """Confidence of each token, c = p(token) / sum of p over the `top` most likely tokens (Marco-o1, section 4).

    It exceeds 1 never for one of these tokens, and is small for any other. What does not fit into the model's context
    is left out.

    Args:
        engine: With `Capability.NEXT_TOKEN`.
        requests: Prompts, and the texts that follow them.
        chat: Whether system and user words go through the model's chat template.
        top: Number of most likely tokens.
    """
    prompts = [engine.encode_prompt(prompt, chat=chat) for prompt, _ in requests]
    texts = [
        engine.encode_observation(text)[: max(0, engine.max_context - len(prompt) - 1)]
        for prompt, (_, text) in zip(prompts, requests, strict=True)
    ]
    values: list[list[float]] = [[] for _ in requests]
    for batch in _batches([len(p) + len(t) for p, t in zip(prompts, texts, strict=True)], [bool(t) for t in texts]):
        width = max(len(prompts[index]) + len(texts[index]) for index in batch) + 1
        session = engine.open([prompts[index] for index in batch], seeds=[0] * len(batch), max_tokens=width)
        for place in range(max(len(texts[index]) for index in batch)):
            rows = [row for row, index in enumerate(batch) if place < len(texts[index])]
            ids = [texts[batch[row]][place] for row in rows]
            logprobs = session.next_logprobs(rows).astype(np.float64)
            likely = np.exp(np.partition(logprobs, -top, axis=1)[:, -top:]).sum(axis=1)
            chosen = np.exp(logprobs[np.arange(len(rows)), ids])
            for row, value in zip(rows, chosen / likely, strict=True):
                values[batch[row]].append(float(value))
            session.extend(rows, [[token_id] for token_id in ids])
    return [
        TokenConfidences(values=tuple(found), prompt_tokens=len(prompt) + len(found))
        for found, prompt in zip(values, prompts, strict=True)
    ]


def _batches(lengths: Sequence[int], wanted: Sequence[bool]) -> Iterator[list[int]]:
    """Cut the wanted rows, longest first, into batches that fit into the cache."""
    order = sorted((index for index in range(len(lengths)) if wanted[index]), key=lambda index: -lengths[index])
    while order:
        count = max(1, _CACHE_TOKENS // (lengths[order[0]] + 1))
        yield order[:count]
        order = order[count:]

"""Log-probabilities of given texts under a transformers model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from search_agents.engines.attention import generating
from search_agents.engines.base import ScoredText, ScoringRequest
from search_agents.engines.codec import TextCodec
from search_env.errors import ModelError

__all__ = ["score_texts"]


def score_texts(
    model: Any,
    codec: TextCodec,
    requests: Sequence[ScoringRequest],
    *,
    max_context: int,
    batch_tokens: int,
    dtype: torch.dtype,
) -> list[ScoredText | None]:
    """Score texts; see `Engine.score`.

    Context and text are encoded apart, so the pieces of a text are the same after any context. A text without a
    context is read after the token that begins a text, or ends one where the model has no other.

    Args:
        model: A causal language model.
        codec: Encodes for it.
        requests: The texts.
        max_context: The most tokens the model can read.
        batch_tokens: The most tokens of one forward pass, padding included.
        dtype: What the model computes in.

    Raises:
        ModelError: If a text is empty.
    """
    contexts = [codec.encode_context(request.context) for request in requests]
    texts, pieces = [], []
    for request in requests:
        ids, cut = codec.encode_pieces(request.text)
        texts.append(ids)
        pieces.append(cut)
    for context, text in zip(contexts, texts, strict=True):
        if not text:
            raise ModelError(f"cannot score an empty text after {len(context)} tokens of context; give it a token.")
    found: list[ScoredText | None] = [None] * len(requests)
    lengths = [len(context) + len(text) for context, text in zip(contexts, texts, strict=True)]
    fitting = [index for index in range(len(requests)) if lengths[index] <= max_context]
    order = sorted(fitting, key=lambda index: -lengths[index])
    for batch in _batches(order, [lengths[index] for index in order], batch_tokens):
        scored = _score_batch(model, [(contexts[index], texts[index]) for index in batch], dtype)
        for index, logprobs in zip(batch, scored, strict=True):
            found[index] = ScoredText(tokens=pieces[index], logprobs=logprobs, context_tokens=len(contexts[index]))
    return found


def _score_batch(
    model: Any, rows: Sequence[tuple[list[int], list[int]]], dtype: torch.dtype
) -> list[tuple[float, ...]]:
    """Log-probabilities of the texts, one forward pass.

    Args:
        model: A causal language model.
        rows: Ids of context and text.
        dtype: What to compute in.
    """
    # Padded on the right: what comes later is hidden from a text by causality, so that no mask is needed. (Under the
    # attention of `generating`, transformers would leave a mask of the padding out without a word.)
    width = max(len(context) + len(text) for context, text in rows)
    first = min(len(context) for context, _ in rows)
    ids = np.zeros((len(rows), width), dtype=np.int64)
    for row, (context, text) in enumerate(rows):
        ids[row, : len(context) + len(text)] = [*context, *text]
    input_ids = torch.from_numpy(ids).to(model.device)
    scored = []
    with generating(model, dtype):
        # The logits at a position are those of the next token.
        logits = model(input_ids=input_ids, use_cache=False, logits_to_keep=width - first + 1).logits
        for row, (context, text) in enumerate(rows):
            start = len(context) - first
            # Row by row: a float32 copy of all logits at once would be the largest thing in memory.
            logprobs = logits[row, start : start + len(text)].float().log_softmax(-1)
            targets = input_ids[row, len(context) : len(context) + len(text)]
            scored.append(tuple(logprobs.gather(-1, targets.unsqueeze(-1)).squeeze(-1).tolist()))
    return scored


def _batches(order: Sequence[int], lengths: Sequence[int], batch_tokens: int) -> Iterator[Sequence[int]]:
    start = 0
    while start < len(order):
        count = max(1, batch_tokens // lengths[start])
        yield order[start : start + count]
        start += count

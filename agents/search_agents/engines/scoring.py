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
) -> list[ScoredText]:
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
        ModelError: If a text is empty, or does not fit into the context.
    """
    contexts = [codec.encode_context(request.context) for request in requests]
    texts = [codec.encode_observation(request.text) for request in requests]
    for context, text in zip(contexts, texts, strict=True):
        if not text or len(context) + len(text) > max_context:
            raise ModelError(
                f"cannot score a text of {len(text)} tokens after {len(context)} tokens of context: the text needs at "
                f"least 1 token, and the model reads {max_context} in all. Shorten it."
            )
    found: list[ScoredText | None] = [None] * len(requests)
    order = sorted(range(len(requests)), key=lambda index: -len(contexts[index]) - len(texts[index]))
    for batch in _batches(order, [len(contexts[index]) + len(texts[index]) for index in order], batch_tokens):
        scored = _score_batch(model, [(contexts[index], texts[index]) for index in batch], dtype)
        for index, logprobs in zip(batch, scored, strict=True):
            found[index] = ScoredText(
                tokens=codec.pieces(texts[index]), logprobs=logprobs, context_tokens=len(contexts[index])
            )
    return [each for each in found if each is not None]


def _score_batch(
    model: Any, rows: Sequence[tuple[list[int], list[int]]], dtype: torch.dtype
) -> list[tuple[float, ...]]:
    """Log-probabilities of the texts, one forward pass.

    Args:
        model: A causal language model.
        rows: Ids of context and text.
        dtype: What to compute in.
    """
    width = max(len(context) + len(text) for context, text in rows)
    longest = max(len(text) for _, text in rows)
    # Padded on the left: the logits of all texts then lie in the same last columns.
    ids = np.zeros((len(rows), width), dtype=np.int64)
    mask = np.zeros((len(rows), width), dtype=np.int64)
    for row, (context, text) in enumerate(rows):
        ids[row, width - len(context) - len(text) :] = [*context, *text]
        mask[row, width - len(context) - len(text) :] = 1
    device = model.device
    input_ids, attention_mask = torch.from_numpy(ids).to(device), torch.from_numpy(mask).to(device)
    with generating(model, dtype):
        logits = model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=(attention_mask.cumsum(-1) - 1).clamp_(min=0),
            use_cache=False,
            logits_to_keep=longest + 1,
        ).logits[:, :-1]
        targets = input_ids[:, -longest:]
        logprobs = [
            # Row by row: a float32 copy of all logits at once would be the largest thing in memory.
            each.float().log_softmax(-1).gather(-1, wanted.unsqueeze(-1)).squeeze(-1)
            for each, wanted in zip(logits, targets, strict=True)
        ]
    return [tuple(each[longest - len(text) :].tolist()) for each, (_, text) in zip(logprobs, rows, strict=True)]


def _batches(order: Sequence[int], lengths: Sequence[int], batch_tokens: int) -> Iterator[Sequence[int]]:
    start = 0
    while start < len(order):
        count = max(1, batch_tokens // lengths[start])
        yield order[start : start + count]
        start += count

"""Stored episodes in the tokens and the prompt of the model that shall imitate them.

Another model's episodes are encoded again, segment by segment, so that the mask is known
from where each text came from and not from what it says. Text of the model and of the
environment is encoded alike: nothing in it can become a special token.

The prompt is always the student's own. So a model may be trained to do by itself what a
teacher did because its prompt explained the protocol.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Sequence
from typing import Any

from search_agents.engines.codec import TextCodec
from search_agents.rollout import Episode, SegmentKind, TokenSegment
from search_env.episode import Rules

__all__ = ["encode_episodes", "prefill_of", "tokenizer_fingerprint"]


def encode_episodes(
    episodes: Sequence[Episode], tokenizer: Any, rules: Rules, *, chat: bool, same_tokens: bool
) -> list[Episode]:
    """Bring episodes into the form in which a model would have read and written them.

    Args:
        episodes: As they were sampled.
        tokenizer: Of the model that shall imitate them.
        rules: Word its prompts.
        chat: Whether its prompts go through its chat template.
        same_tokens: Whether the episodes were sampled with this very tokenizer; then every token that was sampled is
            kept as it was drawn.

    Returns:
        The episodes; the log-prob of a token that was not sampled as such is NaN.

    Raises:
        ModelError: If `chat` is asked of a tokenizer without a chat template.
    """
    codec = TextCodec(tokenizer, ())
    made = []
    for episode in episodes:
        prompt = rules.dialect.prompt(episode.transcript.question.text, rules.style)
        opening = TokenSegment(SegmentKind.PROMPT, tuple(codec.encode_prompt(prompt, chat=chat)), (), prompt.text)
        _, *response = episode.segments
        rest = response if same_tokens else [_encoded(segment, codec) for segment in response]
        made.append(dataclasses.replace(episode, segments=(opening, *rest)))
    return made


def prefill_of(rules: Rules) -> str:
    """What every prompt ends in for the response to go on from: only prompts with the same can be exchanged."""
    return rules.dialect.prompt("", rules.style).prefill


def tokenizer_fingerprint(tokenizer: Any) -> str:
    """Tell tokenizers apart: a hash of all that decides how text becomes ids."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        told = json.loads(backend.to_str())
        told |= {"padding": None, "truncation": None}  # which using a tokenizer may change
    else:
        vocabulary = tokenizer.get_vocab() if hasattr(tokenizer, "get_vocab") else {}
        told = {"kind": type(tokenizer).__name__, "vocabulary": vocabulary}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def _encoded(segment: TokenSegment, codec: TextCodec) -> TokenSegment:
    ids = tuple(codec.encode_observation(segment.text))
    unknown = (math.nan,) * len(ids) if segment.kind is SegmentKind.SAMPLED else ()
    return TokenSegment(segment.kind, ids, unknown, segment.text)

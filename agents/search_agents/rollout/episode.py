"""An episode as tokens: the only place where ids, log-probs and mask are put together.

An episode is a list of segments, each of one kind: prompt, sampled or observation.
Ids, log-probs and mask are their concatenation and nothing else. What the model
sampled is known from where the ids came from, never from what they say, so no text,
whatever tags it holds, can change the mask.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from search_env.types import (
    Action,
    ActionKind,
    Call,
    Document,
    FormatVerdict,
    Hit,
    Hop,
    Question,
    Spending,
    StopReason,
    Transcript,
    Turn,
)

__all__ = ["Episode", "SegmentKind", "TokenSegment", "read_transcript"]


class SegmentKind(StrEnum):
    """Where the tokens of a segment come from."""

    PROMPT = "prompt"
    """Encoded from the words that open the episode, a forced beginning of the response included."""
    SAMPLED = "sampled"
    """Sampled by the model: the only tokens that are trained on."""
    OBSERVATION = "observation"
    """Encoded from the environment's text."""


@dataclass(frozen=True, slots=True)
class TokenSegment:
    """Tokens that entered the model's context together.

    Raises:
        ValueError: If a sampled segment lacks log-probs, or another has any.
    """

    kind: SegmentKind
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    """One for each token of a sampled segment; empty for the others."""
    text: str
    """The text that was encoded or, cut after its stop string, decoded."""

    @property
    def stored_logprobs(self) -> tuple[float | None, ...]:
        """The log-probs as files keep them for people: four decimals, None for what is not finite."""
        return tuple(round(logprob, 4) if math.isfinite(logprob) else None for logprob in self.logprobs)

    def __post_init__(self) -> None:
        expected = len(self.token_ids) if self.kind is SegmentKind.SAMPLED else 0
        if len(self.logprobs) != expected:
            raise ValueError(
                f"a {self.kind} segment of {len(self.token_ids)} tokens has {len(self.logprobs)} log-probs"
            )


@dataclass(frozen=True, kw_only=True)
class Episode:
    """A finished episode. Let T be its number of tokens."""

    question_id: str
    group: int
    """Episodes of the same question in one batch share it."""
    segments: tuple[TokenSegment, ...]
    """In the order in which the model read or wrote them."""
    transcript: Transcript
    reward: float
    """Sum of `reward_parts`; 0.0 and without meaning if the episode is invalid."""
    reward_parts: dict[str, float]
    metrics: dict[str, float]
    """Of the answer (``f1``, ``em`` …), ``searches`` and ``format_ok``."""
    stop_reason: StopReason
    valid: bool
    """False if the retriever failed: neither trained on nor scored."""

    @cached_property
    def token_ids(self) -> npt.NDArray[np.int64]:
        """What the model read and wrote, [T]."""
        return np.fromiter(chain.from_iterable(segment.token_ids for segment in self.segments), dtype=np.int64)

    @cached_property
    def action_mask(self) -> npt.NDArray[np.bool_]:
        """True where the model sampled the token, [T]."""
        return self._mask_of(SegmentKind.SAMPLED)

    @cached_property
    def observation_mask(self) -> npt.NDArray[np.bool_]:
        """True where the environment wrote the token, the prompt left out, [T]."""
        return self._mask_of(SegmentKind.OBSERVATION)

    @cached_property
    def logprobs(self) -> npt.NDArray[np.float32]:
        """Log-probability of each sampled token when it was drawn, 0 elsewhere, [T]."""
        logprobs = np.zeros(len(self.token_ids), dtype=np.float32)
        logprobs[self.action_mask] = list(chain.from_iterable(segment.logprobs for segment in self.segments))
        return logprobs

    def _mask_of(self, kind: SegmentKind) -> npt.NDArray[np.bool_]:
        lengths = [len(segment.token_ids) for segment in self.segments]
        return np.repeat([segment.kind is kind for segment in self.segments], lengths)

    def to_json(self) -> str:
        """Write the episode as one line of JSON."""
        return json.dumps(dataclasses.asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, line: str) -> Episode:
        """Read what `to_json` wrote."""
        fields = json.loads(line)
        fields["segments"] = tuple(_read_segment(segment) for segment in fields["segments"])
        fields["transcript"] = read_transcript(fields["transcript"])
        fields["stop_reason"] = StopReason(fields["stop_reason"])
        return cls(**fields)


def _read_segment(fields: dict[str, Any]) -> TokenSegment:
    return TokenSegment(
        kind=SegmentKind(fields["kind"]),
        token_ids=tuple(fields["token_ids"]),
        logprobs=tuple(fields["logprobs"]),
        text=fields["text"],
    )


def read_transcript(fields: Mapping[str, Any]) -> Transcript:
    """Read what `dataclasses.asdict` and JSON made of a transcript; other fields are left alone."""
    asked: Mapping[str, Any] = fields["question"]
    question: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in asked.items()}
    question["decomposition"] = tuple(Hop(**hop) for hop in question.get("decomposition", ()))
    return Transcript(
        question=Question(**question),
        turns=tuple(_read_turn(turn) for turn in fields["turns"]),
        stop_reason=StopReason(fields["stop_reason"]) if fields["stop_reason"] else None,
        format=FormatVerdict(problems=tuple(fields["format"]["problems"])),
        spending={provider: Spending(**spent) for provider, spent in fields.get("spending", {}).items()},
    )


def _read_turn(fields: dict[str, Any]) -> Turn:
    return Turn(
        segment=fields["segment"],
        action=Action(**{**fields["action"], "kind": ActionKind(fields["action"]["kind"])}),
        hits=tuple(Hit(document=Document(**hit["document"]), score=hit["score"]) for hit in fields["hits"]),
        observation=fields["observation"],
        calls=tuple(_read_call(call) for call in fields.get("calls", ())),
    )


def _read_call(fields: dict[str, Any]) -> Call:
    tokens = {key: tuple(fields.get(key, ())) for key in ("token_ids", "logprobs")}
    # Files of earlier versions do not tell what a call cost.
    return Call(**{"cost": None, **fields, **tokens})

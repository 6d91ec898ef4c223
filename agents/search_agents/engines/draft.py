"""A segment that is being sampled, one token at a time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from search_agents.engines.base import FinishReason, SampledSegment
from search_agents.engines.codec import SegmentEnd, TextCodec

__all__ = ["SegmentDraft"]


class SegmentDraft:
    """Collects the tokens of a segment and notices where it ends.

    Args:
        codec: Finds the end.
        stop: The stop strings.
        limit: The most tokens.
        vocab_size: Of the model.
    """

    def __init__(self, codec: TextCodec, stop: tuple[str, ...], limit: int, vocab_size: int) -> None:
        self.token_ids: list[int] = []
        self._logprobs: list[float] = []
        self._end: SegmentEnd | None = None
        self._codec, self._stop, self._limit = codec, stop, limit
        self._suspects: npt.NDArray[np.bool_] = codec.may_end(stop, vocab_size)

    def add(self, token_id: int, logprob: float) -> bool:
        """Append a token; returns whether it ends the segment."""
        self.token_ids.append(token_id)
        self._logprobs.append(logprob)
        if self._suspects[token_id]:
            self._end = self._codec.segment_end(self.token_ids, self._stop)
        if self._end is None and len(self.token_ids) == self._limit:
            self._end = SegmentEnd(FinishReason.LENGTH, self._codec.decode(self.token_ids))
        return self.ended

    @property
    def ended(self) -> bool:
        """Whether the segment is finished."""
        return self._end is not None

    def segment(self) -> SampledSegment:
        """The finished segment."""
        assert self._end is not None
        return SampledSegment(
            token_ids=self.token_ids, logprobs=self._logprobs, text=self._end.text, finish=self._end.finish
        )

"""The segments that a batch is sampling, one column of tokens at a time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from search_agents.engines.base import FinishReason, SampledSegment
from search_agents.engines.codec import SegmentEnd, TextCodec

__all__ = ["SegmentDraft"]


class SegmentDraft:
    """Collects tokens and notices where each segment ends.

    Args:
        codec: Finds the end of segments.
        stop: The stop strings.
        limits: The most tokens of each segment, [entries].
    """

    def __init__(self, codec: TextCodec, stop: tuple[str, ...], limits: npt.NDArray[np.int64]) -> None:
        self.step = 0
        """Number of tokens that every entry still in the batch has."""
        self._codec = codec
        self._stop = stop
        self._limits = limits
        self._ids = np.zeros((len(limits), int(limits.max())), dtype=np.int64)
        self._logprobs = np.zeros(self._ids.shape, dtype=np.float32)
        self._lengths = np.zeros(len(limits), dtype=np.int64)
        self._ends: list[SegmentEnd | None] = [None] * len(limits)

    def add(
        self,
        entries: npt.NDArray[np.int64],
        ids: npt.NDArray[np.int64],
        logprobs: npt.NDArray[np.float32],
        suspect: npt.NDArray[np.bool_],
    ) -> npt.NDArray[np.bool_]:
        """Append one token to each entry.

        Args:
            entries: Which segments, [active].
            ids: Their tokens, [active].
            logprobs: Log-probability of each token, [active].
            suspect: Whether the token may end a segment, [active].

        Returns:
            Whether each segment goes on, [active].
        """
        self._ids[entries, self.step] = ids
        self._logprobs[entries, self.step] = logprobs
        self.step += 1
        going_on = np.ones(len(entries), dtype=np.bool_)
        for index in np.flatnonzero(suspect | (self._limits[entries] == self.step)):
            entry = entries[index]
            self._ends[entry] = self._end(entry)
            if self._ends[entry] is not None:
                self._lengths[entry] = self.step
                going_on[index] = False
        return going_on

    def segments(self) -> list[SampledSegment]:
        """The finished segments, in the order of `limits`."""
        return [
            SampledSegment(
                token_ids=self._ids[entry, :length].tolist(),
                logprobs=self._logprobs[entry, :length].tolist(),
                text=end.text,
                finish=end.finish,
            )
            for entry, (length, end) in enumerate(zip(self._lengths, self._ends, strict=True))
            if end is not None
        ]

    def _end(self, entry: int) -> SegmentEnd | None:
        ids = self._ids[entry, : self.step].tolist()
        end = self._codec.segment_end(ids, self._stop)
        if end is None and self.step == self._limits[entry]:
            return SegmentEnd(FinishReason.LENGTH, self._codec.decode(ids))
        return end

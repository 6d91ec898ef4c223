"""Which row of a session lies in which slot of its key-value cache.

A row takes a slot when it is first computed and gives it back when it is released.
Decoding reads the first slots as one block, so the rows that are being decoded are
kept close together: where too many of the slots between them rest, the last rows move
into those.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from search_agents.engines.kv_cache import RaggedKVCache

__all__ = ["Slots"]

_Ints = npt.NDArray[np.int64]

_DENSE = 0.7
"""The least share of rows that are decoded among the slots that are: a row that rests costs as much as one that
does not, and a move copies all that a row holds."""


class Slots:
    """The slots of a cache and who is in them.

    Args:
        cache: Rows are moved in it.
    """

    def __init__(self, cache: RaggedKVCache) -> None:
        self._cache = cache
        self._slot_of: dict[int, int] = {}
        self._row_in: list[int | None] = []
        self._free: list[int] = []

    def __contains__(self, row: int) -> bool:
        return row in self._slot_of

    def __iter__(self) -> Iterator[int]:
        return iter(self._slot_of)

    def of(self, rows: Iterable[int]) -> _Ints:
        """The slot of each row, [rows]."""
        return np.asarray([self._slot_of[row] for row in rows], dtype=np.int64)

    def take(self, rows: Iterable[int]) -> None:
        """Give each row the first slot that is free."""
        for row in rows:
            if not self._free:
                self._free.append(len(self._row_in))
                self._row_in.append(None)
            slot = heapq.heappop(self._free)
            self._row_in[slot], self._slot_of[row] = row, slot
        self._cache.reserve(len(self._row_in))

    def release(self, row: int) -> None:
        """Free the slot of a row, if it has one."""
        slot = self._slot_of.pop(row, None)
        if slot is not None:
            self._row_in[slot] = None
            heapq.heappush(self._free, slot)

    def gather(self, rows: Sequence[int], lengths: _Ints) -> int:
        """Bring rows close together.

        Args:
            rows: Distinct rows that have slots.
            lengths: Number of positions in use of each row of the session.

        Returns:
            Number of first slots that hold them all, others among them.
        """
        slots = self.of(rows)
        width = int(slots.max()) + 1
        if len(rows) >= _DENSE * width:
            return width
        wanted = set(rows)
        holes = [slot for slot in range(len(rows)) if self._row_in[slot] not in wanted]
        far = sorted(slots[slots >= len(rows)].tolist())
        source, target = list(far), list(holes)
        for hole, slot in zip(holes, far, strict=True):
            displaced = self._row_in[hole]
            if displaced is not None:
                source.append(hole)
                target.append(slot)
        moved = [self._row_in[slot] for slot in source]
        for slot in source:
            self._row_in[slot] = None
        for row, slot in zip(moved, target, strict=True):
            assert row is not None
            self._row_in[slot], self._slot_of[row] = row, slot
        self._free = [slot for slot, row in enumerate(self._row_in) if row is None]  # sorted, so it is a heap
        self._cache.move(source, target, int(lengths[moved].max()))
        return len(rows)

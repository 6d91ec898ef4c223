"""What texts that begin alike share: the keys and values of their beginning, computed once.

Rows that are opened together take a shared beginning from the first of them that has
it (`shared_beginnings`). Texts that are written one after another take it from those
that were read before (`PrefixCache`): a method that asks about the same documents
again and again reads them once.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

__all__ = ["Kept", "PrefixCache", "SharedBeginning", "shared_beginnings"]

_WORTH_SHARING = 32  # tokens: fewer cost more to wait for than to compute
_BLOCK = 16  # tokens: a kept text is found by its beginnings of so many, twice as many, ...


class SharedBeginning(NamedTuple):
    """Where a row takes its beginning from."""

    wave: int
    """Rows of wave 0 take nothing from others; a row of wave n takes from a row of an earlier one."""
    source: int
    """Index of that row; in wave 0 its own."""
    length: int
    """Number of tokens that are not to be computed; at least one is left."""


def shared_beginnings(prompts: Sequence[Sequence[int]], known: Sequence[int]) -> list[SharedBeginning]:
    """Plan in which order rows are computed so that what they begin with is computed once.

    Sorted, prompts that begin alike lie together, and what a prompt shares with any before it, it shares with the one
    right before it. So one pass over the sorted prompts, which knows who computed each stretch of the prompt right
    before, finds the source of every row.

    Args:
        prompts: Token ids, at least one a row.
        known: Number of tokens that each row has already.
    """
    found = [SharedBeginning(0, row, known[row]) for row in range(len(prompts))]
    path: list[tuple[int, int]] = []  # (end, row): who computed the previous prompt up to which position
    previous: Sequence[int] = ()
    for row in sorted(range(len(prompts)), key=lambda row: list(prompts[row])):
        prompt = prompts[row]
        length = min(_common(previous, prompt), len(prompt) - 1)
        while len(path) > 1 and path[-2][0] >= length:
            path.pop()
        if path:
            path[-1] = (min(length, path[-1][0]), path[-1][1])
        for end, source in path:
            # The earliest row that has almost all of it: waiting for one wave more must be worth its tokens.
            if end > length - _WORTH_SHARING:
                if end >= known[row] + _WORTH_SHARING:
                    found[row] = SharedBeginning(found[source].wave + 1, source, end)
                break
        path.append((len(prompt), row))
        previous = prompt
    return found


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """Number of tokens that two texts begin with alike."""
    shorter = min(len(first), len(second))
    differ = np.flatnonzero(np.asarray(first[:shorter]) != np.asarray(second[:shorter]))
    return int(differ[0]) if len(differ) else shorter


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """A text that was read."""

    ids: tuple[int, ...]
    blocks: list[tuple[torch.Tensor, torch.Tensor]]
    """Keys and values of each layer, [kv_heads, tokens, head_dim] each."""

    @property
    def nbytes(self) -> int:
        """Memory of the blocks, bytes."""
        return sum(block.nbytes for pair in self.blocks for block in pair)


class PrefixCache:
    """Keys and values of texts that a model has read, for texts that begin alike.

    Args:
        capacity: The most bytes that are kept; the texts that were not used for the longest time go first.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._bytes = 0
        self._kept: OrderedDict[Kept, int] = OrderedDict()  # the number of digests that lead to each
        self._index: dict[bytes, Kept] = {}

    def longest(self, ids: Sequence[int]) -> tuple[Kept | None, int]:
        """The kept text that begins most like a given one, and the number of tokens that they share.

        The last token of the given text is never among them, for its logits are wanted.
        """
        found, length = None, 0
        for end, digest in _digests(ids[:-1]):
            kept = self._index.get(digest)
            if kept is None:
                break
            found, length = kept, end
        if found is not None:
            self._kept.move_to_end(found)
        return found, length

    def add(self, kept: Kept) -> None:
        """Keep a text; those that it begins with whole are no longer needed."""
        size = kept.nbytes
        if size > self._capacity:
            return
        digests = [digest for _, digest in _digests(kept.ids)]
        if not digests:
            return
        self._kept[kept] = len(digests)
        self._bytes += size
        for digest in digests:
            before = self._index.get(digest)
            self._index[digest] = kept
            if before is not None:
                self._kept[before] -= 1
                if not self._kept[before]:
                    self._forget(before)
        while self._bytes > self._capacity:
            oldest = next(iter(self._kept))
            for _, digest in _digests(oldest.ids):
                if self._index.get(digest) is oldest:
                    del self._index[digest]
            self._forget(oldest)

    def clear(self) -> None:
        """Forget everything, as new weights make it necessary."""
        self._kept.clear()
        self._index.clear()
        self._bytes = 0

    def _forget(self, kept: Kept) -> None:
        del self._kept[kept]
        self._bytes -= kept.nbytes


def _digests(ids: Sequence[int]) -> Iterator[tuple[int, bytes]]:
    """The length of each beginning of whole blocks, and what it is found by."""
    digest = b""
    for end in range(_BLOCK, len(ids) + 1, _BLOCK):
        block = np.asarray(ids[end - _BLOCK : end], dtype=np.int64).tobytes()
        digest = hashlib.blake2b(digest + block, digest_size=16).digest()
        yield end, digest

"""The key-value cache of a session: rows of different lengths in one block a layer.

A row lives in a slot. Where the rows of a forward pass lie in consecutive slots the
model reads them as a view, without a copy; `move` brings them there. Every token is
written at its own row's position, and attention sees the block cropped to the longest
row of the pass. Blocks grow by doubling, so memory follows the longest row, not the
budget.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import Cache

__all__ = ["RaggedKVCache"]

_LEAST_POSITIONS = 128


class RaggedKVCache(Cache):  # type: ignore[misc]  # transformers is not typed
    """Keys and values of every layer, [slots, kv_heads, positions + 1, head_dim] each.

    The last position of a slot takes the writes of padding and is never read.

    Args:
        capacity: The most tokens of a row.
        dtype: What keys and values are kept in, whatever the model computes them in.
    """

    def __init__(self, capacity: int, dtype: torch.dtype) -> None:
        super().__init__(layers=[])
        self._capacity, self._dtype = capacity, dtype
        self._slots, self._length = 0, 0  # rows and positions of each block
        self._blocks: dict[int, list[torch.Tensor]] = {}  # keys and values of each layer
        self._window: slice | torch.Tensor = slice(0, 0)
        self._rows = torch.empty(0, 1, dtype=torch.long)
        self._positions = torch.empty(0, 0, dtype=torch.long)
        self._crop = 0

    def reserve(self, slots: int) -> None:
        """Have at least so many slots."""
        if slots > self._slots:
            self._grow(slots, self._length)

    def lengthen(self, length: int) -> None:
        """Have at least so many positions in each slot; told before anything is written, no more than those."""
        if length > self._length:
            ample = max(length, 2 * self._length, _LEAST_POSITIONS) if self._blocks else length
            self._grow(self._slots, min(self._capacity, ample))

    def aim(self, slots: npt.NDArray[np.int64], positions: torch.Tensor, crop: int) -> None:
        """Say where the next forward pass writes and reads.

        Args:
            slots: Slot of each row of the pass, [rows]; what lies in slots that do not follow one another is copied.
            positions: Position of each new token in its row, -1 for padding, long [rows, new_tokens].
            crop: Number of positions to attend to, those of the longest row.
        """
        self.lengthen(crop)
        rows = torch.from_numpy(slots).to(positions.device)
        consecutive = bool((np.diff(slots) == 1).all())
        self._window = slice(int(slots[0]), int(slots[0]) + len(slots)) if consecutive else rows
        self._rows = rows[:, None]
        self._positions = torch.where(positions < 0, self._length, positions)
        self._crop = crop

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write one layer's new keys and values, [rows, kv_heads, new_tokens, head_dim] each.

        Returns:
            This layer's block, [rows, kv_heads, crop, head_dim] each.
        """
        if layer_idx not in self._blocks:
            self._blocks[layer_idx] = [self._allocate(states) for states in (key_states, value_states)]
        keys, values = self._blocks[layer_idx]
        keys[self._rows, :, self._positions] = key_states.transpose(1, 2).to(self._dtype)
        values[self._rows, :, self._positions] = value_states.transpose(1, 2).to(self._dtype)
        return keys[self._window, :, : self._crop], values[self._window, :, : self._crop]

    def move(self, source: Sequence[int], target: Sequence[int], crop: int) -> None:
        """Copy slots to slots at once, as in a permutation.

        Args:
            source: Slots to read.
            target: Slots to overwrite, as many.
            crop: Number of positions in use in the longest of them.
        """
        for blocks in self._blocks.values():
            for block in blocks:
                block[target, :, :crop] = block[source, :, :crop]

    def read(self, slot: int, length: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Copies of the first positions of a slot: keys and values of each layer, [kv_heads, length, head_dim] each."""
        return [(keys[slot, :, :length].clone(), values[slot, :, :length].clone()) for keys, values in self._in_order()]

    def write(self, slot: int, kept: Sequence[tuple[torch.Tensor, torch.Tensor]], length: int) -> None:
        """Put the first `length` positions of what `read` gave into a slot, which may be of another cache."""
        self.lengthen(length)
        for layer, pair in enumerate(kept):
            if layer not in self._blocks:
                self._blocks[layer] = [self._allocate(states[None]) for states in pair]
            for block, states in zip(self._blocks[layer], pair, strict=True):
                block[slot, :, :length] = states[:, :length]

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Number of positions of the pass in progress; models that are given positions do not ask."""
        return self._crop

    def _in_order(self) -> list[list[torch.Tensor]]:
        return [self._blocks[layer] for layer in range(len(self._blocks))]

    def _grow(self, slots: int, length: int) -> None:
        rows, used = self._slots, self._length
        self._slots, self._length = slots, length
        for blocks in self._blocks.values():
            for index, block in enumerate(blocks):
                blocks[index] = self._allocate(block)
                blocks[index][:rows, :, :used] = block[:, :, :used]

    def _allocate(self, like: torch.Tensor) -> torch.Tensor:
        # Zeros, for memory never written may hold NaN, which a mask does not hide.
        _, heads, _, head_dim = like.shape
        return like.new_zeros(self._slots, heads, self._length + 1, head_dim, dtype=self._dtype)

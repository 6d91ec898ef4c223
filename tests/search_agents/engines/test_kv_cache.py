from __future__ import annotations

import numpy as np
import torch
from search_agents.engines.kv_cache import RaggedKVCache


def states(*values: float) -> torch.Tensor:
    """[rows, kv_heads = 1, new_tokens = 1, head_dim = 2], each row filled with its value."""
    return torch.tensor(values)[:, None, None, None].expand(-1, 1, 1, 2)


def write(cache: RaggedKVCache, first: int, positions: list[int], values: list[float], crop: int) -> torch.Tensor:
    cache.reserve(first + len(positions))
    cache.aim(np.arange(first, first + len(positions)), torch.tensor(positions)[:, None], crop)
    keys, found = cache.update(states(*values), states(*values), 0)
    assert torch.equal(keys, found)
    return keys[:, 0, :, 0]


def test_each_row_is_written_at_its_own_position_and_read_up_to_the_longest() -> None:
    cache = RaggedKVCache(10, torch.float32)
    assert write(cache, 0, [0, 2, 1], [1.0, 2.0, 3.0], crop=3).tolist() == [[1, 0, 0], [0, 0, 2], [0, 3, 0]]
    assert write(cache, 1, [3, 0], [4.0, 5.0], crop=4).tolist() == [[0, 0, 2, 4], [5, 3, 0, 0]]


def test_padding_is_written_where_nobody_reads() -> None:
    cache = RaggedKVCache(3, torch.float32)
    assert write(cache, 0, [-1, 2], [9.0, 1.0], crop=3).tolist() == [[0, 0, 0], [0, 0, 1]]


def test_blocks_grow_with_the_rows_and_keep_what_they_hold() -> None:
    cache = RaggedKVCache(1000, torch.float32)
    write(cache, 0, [0], [1.0], crop=1)
    write(cache, 0, [-1], [9.0], crop=1)
    grown = write(cache, 0, [700], [2.0], crop=701)
    assert grown[0].nonzero().flatten().tolist() == [0, 700]  # the padding of before is nowhere
    assert len(write(cache, 0, [999], [3.0], crop=1000)[0]) == 1000


def test_a_cache_that_is_told_its_length_beforehand_is_allocated_once() -> None:
    cache = RaggedKVCache(1000, torch.float32)
    cache.lengthen(200)
    cache.lengthen(300)
    first = write(cache, 0, [0, 1], [1.0, 2.0], crop=2)
    assert write(cache, 0, [299, 2], [3.0, 4.0], crop=300).data_ptr() == first.data_ptr()
    assert write(cache, 0, [300, 3], [5.0, 6.0], crop=301).data_ptr() != first.data_ptr()


def test_slots_trade_places() -> None:
    cache = RaggedKVCache(10, torch.float32)
    write(cache, 0, [0, 0, 0], [1.0, 2.0, 3.0], crop=1)
    cache.move([2, 0], [0, 2], 1)
    assert write(cache, 0, [1, 1, 1], [0.0, 0.0, 0.0], crop=1).tolist() == [[3], [2], [1]]


def test_keys_and_values_are_kept_in_the_dtype_of_the_cache() -> None:
    cache = RaggedKVCache(10, torch.bfloat16)
    assert write(cache, 0, [0], [1.0], crop=1).dtype is torch.bfloat16


def test_a_slot_takes_the_beginning_of_another() -> None:
    cache = RaggedKVCache(10, torch.float32)
    for position, values in enumerate(([1.0, 2.0, 3.0], [4.0, 5.0, 6.0])):
        write(cache, 0, [position] * 3, values, crop=position + 1)
    cache.move([1, 1], [0, 2], 1)
    assert write(cache, 0, [2, 2, 2], [7.0, 7.0, 7.0], crop=3).tolist() == [[2, 4, 7], [2, 5, 7], [2, 6, 7]]


def test_what_is_read_from_one_cache_is_written_into_another() -> None:
    cache, other = RaggedKVCache(10, torch.float32), RaggedKVCache(400, torch.float32)
    for position, values in enumerate(([1.0, 2.0], [3.0, 4.0])):
        write(cache, 0, [position] * 2, values, crop=position + 1)
    kept = cache.read(1, 2)
    write(cache, 0, [0, 0], [9.0, 9.0], crop=1)  # a copy: it stays what it was
    other.reserve(3)
    other.write(2, kept, 1)
    other.write(0, kept, 2)
    assert write(other, 0, [2, 1, 1], [5.0, 5.0, 5.0], crop=3).tolist() == [[2, 4, 5], [0, 5, 0], [2, 5, 0]]
    write(other, 0, [300, 2, 2], [6.0, 6.0, 6.0], crop=301)
    assert len(other.read(0, 301)[0][0][0]) == 301

from __future__ import annotations

import numpy as np
import pytest
import torch
from search_agents.engines.kv_cache import RaggedKVCache
from search_agents.engines.slots import Slots


class Shadow:
    """Slots whose cache holds, at the only position of each row, the number of the row."""

    def __init__(self) -> None:
        self.cache = RaggedKVCache(10, torch.float32)
        self.slots = Slots(self.cache)

    def take(self, rows: list[int]) -> None:
        self.slots.take(rows)
        slots = self.slots.of(rows)
        self.cache.aim(slots, torch.zeros(len(rows), 1, dtype=torch.long), 1)
        states = torch.tensor(rows, dtype=torch.float32)[:, None, None, None]
        self.cache.update(states, states, 0)

    def held(self, row: int) -> int:
        keys, values = self.cache.read(int(self.slots.of([row])[0]), 1)[0]
        assert torch.equal(keys, values)
        return int(keys.item())


@pytest.mark.parametrize("seed", range(10))
def test_rows_keep_what_they_hold_wherever_they_are_brought(seed: int) -> None:
    rng, shadow, here, lengths = np.random.default_rng(seed), Shadow(), set[int](), np.ones(500, dtype=np.int64)
    for new in range(200):
        if len(here) < 12:
            shadow.take([2 * new, 2 * new + 1])
            here |= {2 * new, 2 * new + 1}
        for row in rng.permutation(sorted(here))[: rng.integers(0, 3)].tolist():
            shadow.slots.release(row)
            here.remove(row)
        together = rng.permutation(sorted(here))[: rng.integers(1, len(here) + 1)].tolist() if here else []
        if together:
            width = shadow.slots.gather(together, lengths)
            assert len(together) <= width <= len(together) / 0.7
            assert sorted(set(shadow.slots.of(together).tolist()) - set(range(width))) == []
        assert set(shadow.slots) == here and all(shadow.held(row) == row for row in here)
    assert shadow.cache._slots <= 14  # places are taken again; there never were more rows at once


def test_rows_that_rest_among_few_others_stay_where_they_are() -> None:
    shadow = Shadow()
    shadow.take(list(range(10)))
    assert shadow.slots.gather([0, 1, 2, 4, 5, 6, 7, 9], np.ones(10, dtype=np.int64)) == 10
    assert shadow.slots.of(range(10)).tolist() == list(range(10))
    assert shadow.slots.gather([9, 3], np.ones(10, dtype=np.int64)) == 2
    assert shadow.slots.of([9, 3, 0, 1]).tolist() == [1, 0, 3, 9]


def test_releasing_a_row_without_a_slot_changes_nothing() -> None:
    shadow = Shadow()
    shadow.slots.release(3)
    shadow.take([5])
    assert 3 not in shadow.slots and shadow.held(5) == 5

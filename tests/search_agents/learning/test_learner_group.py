from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from search_agents.learning.learner import LENGTHS, MINIBATCH, NUM_TOKENS
from search_agents.learning.learner_group import Row, build_batches, cut_evenly, share_out
from search_agents.learning.rl_module import ACTION_MASK, INPUT_IDS


def make_row(length: int, sampled: int) -> Row:
    mask = np.arange(length) >= length - sampled
    ids = np.full(length, length, dtype=np.int64)
    values = mask.astype(np.float32)
    return Row(input_ids=ids, action_mask=mask, logprobs=-values, advantages=2 * values)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=25), st.integers(1, 4))
def test_shares_hold_every_row_once_and_none_more_than_it_must(lengths: list[int], number: int) -> None:
    shares = share_out(lengths, number)
    assert sorted(index for share in shares for index in share) == list(range(len(lengths)))
    assert max(map(len, shares)) <= -(-len(lengths) // number)


def test_shares_are_balanced_by_tokens() -> None:
    shares = share_out([100, 90, 20, 15, 10, 5], 2)
    tokens = [sum([100, 90, 20, 15, 10, 5][index] for index in share) for share in shares]
    assert max(tokens) - min(tokens) <= 10 and [len(share) for share in shares] == [3, 3]


def test_batches_of_several_learners_have_equal_rows_in_every_minibatch() -> None:
    rows = [make_row(length, sampled=2) for length in (9, 4, 7, 5, 8, 6, 3)]
    batches = [batch[DEFAULT_MODULE_ID] for batch in build_batches(rows, minibatch_size=3, num_shares=2)]
    for batch in batches:
        assert batch[MINIBATCH].tolist() == [0, 0, 1, 2]
        assert batch[NUM_TOKENS].tolist() == [6.0, 6.0, 4.0, 4.0], "of the whole minibatch, over both learners"
    sampled = sum(int(batch[ACTION_MASK].sum()) for batch in batches)
    assert sampled == 14
    fillers = [
        int(n) for batch in batches for n, m in zip(batch[LENGTHS], batch[ACTION_MASK], strict=True) if not m.any()
    ]
    assert fillers == [2], "where the rows do not suffice"


@pytest.mark.parametrize(
    ("number", "size", "sizes"),
    [
        (128, 32, [32] * 4),
        (100, 32, [25] * 4),
        (33, 32, [17, 16]),
        (65, 32, [22, 22, 21]),
        (5, 8, [5]),
        (4, 1, [1] * 4),
    ],
)
def test_no_step_has_a_small_rest_of_the_batch(number: int, size: int, sizes: list[int]) -> None:
    rows = [make_row(4 + index % 7, sampled=2) for index in range(number)]
    (batch,) = build_batches(rows, minibatch_size=size, num_shares=1)
    assert np.bincount(batch[DEFAULT_MODULE_ID][MINIBATCH]).tolist() == sizes
    assert batch[DEFAULT_MODULE_ID][LENGTHS].tolist() == [len(row.input_ids) for row in rows], "in their order"


@given(st.integers(1, 300), st.integers(1, 64))
def test_parts_follow_one_another_and_differ_by_one_at_most(number: int, size: int) -> None:
    parts = [range(number)[part] for part in cut_evenly(number, size)]
    assert [index for part in parts for index in part] == list(range(number))
    lengths = {len(part) for part in parts}
    assert max(lengths) <= size and max(lengths) - min(lengths) <= 1 and len(parts) == -(-number // size)


def test_columns_are_padded_on_the_right() -> None:
    (batch,) = build_batches([make_row(3, 1), make_row(5, 2)], minibatch_size=8, num_shares=1)
    columns = batch[DEFAULT_MODULE_ID]
    assert columns[INPUT_IDS].tolist() == [[3, 3, 3, 0, 0], [5, 5, 5, 5, 5]]
    assert columns[ACTION_MASK].astype(int).tolist() == [[0, 0, 1, 0, 0], [0, 0, 0, 1, 1]]
    assert columns[Columns.ACTION_LOGP].tolist() == [[0, 0, -1, 0, 0], [0, 0, 0, -1, -1]]
    assert columns[Columns.ADVANTAGES].tolist() == [[0, 0, 2, 0, 0], [0, 0, 0, 2, 2]]
    assert columns[LENGTHS].tolist() == [3, 5]

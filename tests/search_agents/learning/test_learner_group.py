from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from search_agents.learning.learner import LENGTHS, MINIBATCH, NUM_TOKENS
from search_agents.learning.learner_group import Row, build_batches, share_out
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
        assert batch[MINIBATCH].tolist() == [0, 0, 1, 1, 2]
        assert batch[NUM_TOKENS].tolist() == [6.0, 6.0, 6.0, 6.0, 2.0], "of the whole minibatch, over both learners"
    sampled = sum(int(batch[ACTION_MASK].sum()) for batch in batches)
    assert sampled == 14
    fillers = [
        int(n) for batch in batches for n, m in zip(batch[LENGTHS], batch[ACTION_MASK], strict=True) if not m.any()
    ]
    assert fillers == [2, 2, 2], "where the rows do not suffice"


def test_columns_are_padded_on_the_right() -> None:
    (batch,) = build_batches([make_row(3, 1), make_row(5, 2)], minibatch_size=8, num_shares=1)
    columns = batch[DEFAULT_MODULE_ID]
    assert columns[INPUT_IDS].tolist() == [[3, 3, 3, 0, 0], [5, 5, 5, 5, 5]]
    assert columns[ACTION_MASK].astype(int).tolist() == [[0, 0, 1, 0, 0], [0, 0, 0, 1, 1]]
    assert columns[Columns.ACTION_LOGP].tolist() == [[0, 0, -1, 0, 0], [0, 0, 0, -1, -1]]
    assert columns[Columns.ADVANTAGES].tolist() == [[0, 0, 2, 0, 0], [0, 0, 0, 2, 2]]
    assert columns[LENGTHS].tolist() == [3, 5]

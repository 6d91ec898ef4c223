from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.rllib.core import DEFAULT_MODULE_ID
from search_agents.learning.aggregation import Aggregation, episode_weights
from search_agents.learning.learner import NUM_TOKENS, WEIGHT
from search_agents.learning.learner_group import Row, build_batches
from search_agents.learning.rl_module import ACTION_MASK


def reference(losses: list[list[float]], aggregation: Aggregation, max_tokens: int) -> float:
    """The loss of a minibatch by the formulas of the papers, from the losses of the tokens of each episode."""
    sampled = [episode for episode in losses if episode]
    if aggregation is Aggregation.TOKEN:
        return sum(map(sum, sampled)) / sum(map(len, sampled))
    if aggregation is Aggregation.SEQUENCE:
        return sum(sum(episode) / len(episode) for episode in sampled) / len(sampled)
    return sum(sum(episode) / max_tokens for episode in sampled) / len(sampled)


@given(st.lists(st.integers(0, 9), min_size=1, max_size=8).filter(any), st.sampled_from(Aggregation))
def test_weighted_sums_are_the_means_of_the_formulas(counts: list[int], aggregation: Aggregation) -> None:
    rng = np.random.default_rng(sum(counts))
    losses = [rng.normal(size=count).tolist() for count in counts]
    weights = episode_weights(counts, aggregation, max_tokens=7)
    found = sum(weight * sum(episode) for weight, episode in zip(weights, losses, strict=True)) / sum(counts)
    assert found == pytest.approx(reference(losses, aggregation, 7), rel=1e-5, abs=1e-6)


def test_the_token_mean_weighs_every_token_with_exactly_one() -> None:
    assert episode_weights([3, 1, 0], Aggregation.TOKEN, max_tokens=7).tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("aggregation", Aggregation)
def test_the_shares_of_two_learners_add_up_to_the_loss_of_one(aggregation: Aggregation) -> None:
    rows = []
    for length in (9, 4, 7, 5, 8):
        mask = np.arange(length) >= 3
        values = np.zeros(length, dtype=np.float32)
        rows.append(Row(input_ids=np.arange(length), action_mask=mask, logprobs=values, advantages=values))
    sums = []
    for shares in (1, 2):
        batches = build_batches(rows, minibatch_size=3, num_shares=shares, aggregation=aggregation, max_tokens=11)
        parts = [batch[DEFAULT_MODULE_ID] for batch in batches]
        sums.append(sum(float((p[WEIGHT] * p[ACTION_MASK].sum(1) / p[NUM_TOKENS]).sum()) for p in parts))
    expected = sum(
        reference([[1.0] * int(row.action_mask.sum()) for row in part], aggregation, 11)
        for part in (rows[:3], rows[3:])
    )
    assert sums == pytest.approx([expected, expected])

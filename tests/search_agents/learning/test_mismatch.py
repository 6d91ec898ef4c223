from __future__ import annotations

import numpy as np
import pytest
import torch
from search_agents.learning.losses import policy_loss
from search_agents.learning.mismatch import Mismatch, importance_weights


def test_the_weights_are_those_of_the_formulas() -> None:
    ratios = np.array([0.1, 0.5, 0.9, 1.0, 1.9, 2.0, 7.0])
    sampled = np.full(7, -3.0)
    computed = sampled + np.log(ratios)
    weights = {m: importance_weights(computed, sampled, mismatch=m, cap=2.001) for m in Mismatch}
    assert weights[Mismatch.IGNORED].tolist() == [1.0] * 7
    np.testing.assert_allclose(weights[Mismatch.TRUNCATED], [0.1, 0.5, 0.9, 1.0, 1.9, 2.0, 2.001])
    np.testing.assert_allclose(weights[Mismatch.MASKED], [0.0, 0.5, 0.9, 1.0, 1.9, 2.0, 0.0])


def test_log_probs_far_apart_give_no_infinite_weight() -> None:
    apart = importance_weights(np.array([0.0]), np.array([-900.0]), mismatch=Mismatch.MASKED, cap=2.0)
    assert apart.tolist() == [0.0]


@pytest.mark.parametrize("advantage", [1.0, -1.0])
def test_a_weight_on_the_advantage_is_a_weight_on_the_loss(advantage: float) -> None:
    new, weights = torch.linspace(-0.6, 0.6, 7), torch.linspace(0, 2, 7)
    advantages = torch.full((7,), advantage)
    settings = {"clip": 0.2, "num_tokens": 1.0}
    inside = policy_loss(new, torch.zeros(7), advantages * weights, **settings).loss
    outside = policy_loss(new, torch.zeros(7), advantages, weights=weights, **settings).loss
    torch.testing.assert_close(inside, outside)


def test_what_the_engine_draws_too_often_counts_for_less_and_the_estimate_is_right_again() -> None:
    rng = np.random.default_rng(0)
    old, engine, values = rng.dirichlet(np.ones(5)), rng.dirichlet(np.ones(5) * 9), rng.normal(size=5)
    weights = importance_weights(np.log(old), np.log(engine), mismatch=Mismatch.TRUNCATED, cap=1e6)
    assert (engine * weights * values).sum() == pytest.approx((old * values).sum())
    assert (engine * values).sum() != pytest.approx((old * values).sum(), rel=1e-2)

from __future__ import annotations

import math
import statistics
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from search_agents.learning.advantages import (
    Advantage,
    KLEstimator,
    compute_advantages,
    episode_scores,
    group_baseline,
    kl_estimate,
    normalise,
    returns_to_go,
    token_rewards,
)

PLAIN, BASELINE = Advantage.REINFORCE_PP, Advantage.REINFORCE_PP_BASELINE

# prompt, first segment, documents, second segment
MASK = np.array([0, 0, 1, 1, 0, 0, 0, 1, 1], dtype=bool)


def reference(
    rewards: list[float],
    masks: list[Any],
    ratios: list[Any],
    groups: list[int],
    estimator: Advantage,
    kl_coef: float,
    kl_estimator: KLEstimator,
) -> list[list[float]]:
    """The formulas of the papers as plain loops over float64."""
    scores = [reference_score(i, rewards, groups, estimator) for i in range(len(rewards))]
    kls = {
        KLEstimator.K1: lambda d: d,
        KLEstimator.K2: lambda d: d * d / 2,
        KLEstimator.K3: lambda d: math.exp(-d) - 1 + d,
    }
    returns: list[list[float]] = []
    for score, mask, ratio in zip(scores, masks, ratios, strict=True):
        last = max((t for t in range(len(mask)) if mask[t]), default=-1)
        row = []
        for t in range(len(mask)):
            total = 0.0
            for u in range(t, len(mask)):
                if mask[u]:
                    total -= kl_coef * kls[kl_estimator](min(max(float(ratio[u]), -10.0), 10.0))
                    total += score if u == last else 0.0
            row.append(total if mask[t] else 0.0)
        returns.append(row)
    if estimator not in (PLAIN, BASELINE):
        return returns
    sampled = [g for row, mask in zip(returns, masks, strict=True) for g, m in zip(row, mask, strict=True) if m]
    mean = sum(sampled) / len(sampled)
    variance = sum((g - mean) ** 2 for g in sampled) / len(sampled)
    scale = max(variance, 1e-8) ** 0.5
    return [
        [(g - mean) / scale if m else 0.0 for g, m in zip(row, mask, strict=True)]
        for row, mask in zip(returns, masks, strict=True)
    ]


def reference_score(i: int, rewards: list[float], groups: list[int], estimator: Advantage) -> float:
    members = [rewards[j] for j in range(len(rewards)) if groups[j] == groups[i]]
    others = [rewards[j] for j in range(len(rewards)) if groups[j] == groups[i] and j != i]
    mean = sum(members) / len(members)
    if estimator is PLAIN:
        return min(max(rewards[i], -10.0), 10.0)
    if estimator is BASELINE:
        return min(max(rewards[i] - mean, -10.0), 10.0)
    if not others:
        return 0.0
    if estimator is Advantage.RLOO:
        return rewards[i] - sum(others) / len(others)
    if estimator is Advantage.DR_GRPO:
        return rewards[i] - mean
    return (rewards[i] - mean) / (statistics.stdev(members) + 1e-6)


@st.composite
def batches(draw: Any) -> tuple[Any, ...]:
    number = draw(st.integers(1, 6))
    masks = [
        np.array(draw(st.lists(st.booleans(), min_size=1, max_size=8))) | (np.arange(1) == 0) for _ in range(number)
    ]
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    ratios = [rng.normal(size=len(mask)).astype(np.float32) * 2 for mask in masks]
    rewards = draw(st.lists(st.floats(-12, 12), min_size=number, max_size=number))
    groups = draw(st.lists(st.integers(0, 2), min_size=number, max_size=number))
    return rewards, masks, ratios, groups


@given(batches(), st.sampled_from(Advantage), st.sampled_from(KLEstimator), st.sampled_from([0.0, 0.1]))
def test_the_advantages_are_those_of_the_formulas_in_plain_loops(
    batch: tuple[Any, ...], estimator: Advantage, kl_estimator: KLEstimator, kl_coef: float
) -> None:
    rewards, masks, ratios, groups = batch
    settings: dict[str, Any] = {"estimator": estimator, "kl_coef": kl_coef, "kl_estimator": kl_estimator}
    computed = compute_advantages(rewards, masks, groups=groups, log_ratios=ratios, **settings)
    expected = reference(rewards, masks, ratios, groups, **settings)
    for row, wanted in zip(computed, expected, strict=True):
        assert row.dtype == np.float32
        np.testing.assert_allclose(row, wanted, rtol=1e-4, atol=1e-4)


def test_a_return_runs_through_the_documents_to_the_first_segment() -> None:
    rewards = token_rewards(2.0, MASK, np.zeros(9), kl_coef=0.0)
    assert rewards.tolist() == [0, 0, 0, 0, 0, 0, 0, 0, 2.0]
    # Multiplying a running return by the mask at each token, as other libraries do, gives 0 before the documents.
    assert returns_to_go(rewards, MASK).tolist() == [0, 0, 2.0, 2.0, 0, 0, 0, 2.0, 2.0]


def test_the_kl_of_a_token_is_paid_by_every_token_before_it() -> None:
    log_ratio = np.array([9.0, 9.0, 1.0, 2.0, 9.0, 9.0, 9.0, 3.0, 4.0])
    returns = returns_to_go(token_rewards(0.0, MASK, log_ratio, kl_coef=0.5), MASK)
    assert returns[MASK].tolist() == [-5.0, -4.5, -3.5, -2.0]


def test_what_is_known_of_document_tokens_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    clean = [rng.normal(size=9) for _ in range(3)]
    poisoned = [np.where(MASK, ratio, 1e6) for ratio in clean]
    settings: dict[str, Any] = {"estimator": PLAIN, "groups": [0, 0, 1], "kl_coef": 0.1}
    first, second = (
        compute_advantages([1.0, 0.0, 0.5], [MASK] * 3, log_ratios=ratios, **settings) for ratios in (clean, poisoned)
    )
    np.testing.assert_array_equal(first, second)


def test_the_winner_gets_a_positive_advantage_at_each_of_its_tokens() -> None:
    winner, loser = compute_advantages([1.0, 0.0], [MASK, MASK], estimator=PLAIN, groups=[0, 1])
    assert (winner[MASK] == 1.0).all() and (loser[MASK] == -1.0).all()
    assert not winner[~MASK].any()


def test_normalisation_weighs_tokens_not_episodes() -> None:
    long, short = np.ones(6, dtype=bool), np.ones(2, dtype=bool)
    first, second = compute_advantages([1.0, 0.0], [long, short], estimator=PLAIN, groups=[0, 1])
    tokens = np.concatenate([first, second])
    assert tokens.mean() == pytest.approx(0, abs=1e-6) and tokens.var() == pytest.approx(1, abs=1e-6)
    assert first[0] == pytest.approx(0.25 / np.sqrt(3 / 16))


def test_the_baseline_is_the_mean_of_the_group_only() -> None:
    rewards = np.array([1.0, 3.0, 10.0])
    assert group_baseline(rewards, [7, 7, 2]).tolist() == [2.0, 2.0, 10.0]
    advantages = compute_advantages(rewards, [MASK] * 3, estimator=BASELINE, groups=[7, 7, 2])
    assert advantages[2].tolist() == [0.0] * 9 and advantages[0][2] == -advantages[1][2] < 0


def test_equal_rewards_give_no_advantage() -> None:
    for estimator in Advantage:
        if not estimator.normalises:  # nothing is shared out, not even a rounding error
            assert not np.any(compute_advantages([0.5] * 3, [MASK] * 3, estimator=estimator, groups=[0, 0, 1]))
            continue
        advantages = compute_advantages([0.7] * 3, [MASK] * 3, estimator=estimator, groups=[0, 0, 1])
        assert np.abs(advantages).max() < 1e-6


def test_rewards_and_kl_are_clipped_at_ten() -> None:
    assert episode_scores(np.array([50.0, -50.0]), [0, 1], PLAIN).tolist() == [10.0, -10.0]
    assert episode_scores(np.array([50.0, 0.0]), [0, 0], BASELINE).tolist() == [10.0, -10.0]
    assert episode_scores(np.array([50.0, 0.0]), [0, 0], Advantage.DR_GRPO).tolist() == [25.0, -25.0]
    assert token_rewards(0.0, MASK, np.full(9, -40.0), kl_coef=0.5)[2] == 5.0


def test_grpo_rloo_and_dr_grpo_score_a_group_as_their_papers_do() -> None:
    rewards, groups = np.array([1.0, 0.0, 0.0, 5.0]), [0, 0, 0, 1]
    third = 1 / 3
    assert episode_scores(rewards, groups, Advantage.DR_GRPO) == pytest.approx([2 * third, -third, -third, 0])
    assert episode_scores(rewards, groups, Advantage.RLOO) == pytest.approx([1.0, -0.5, -0.5, 0])
    assert episode_scores(rewards, groups, Advantage.GRPO) == pytest.approx(
        np.array([2 * third, -third, -third, 0]) / third**0.5, rel=1e-5
    )


def test_the_kl_estimators_are_unbiased_where_they_say_so() -> None:
    rng = np.random.default_rng(0)
    policy, other = (rng.dirichlet(np.ones(6)) for _ in range(2))
    log_ratio = np.log(policy / other)
    exact = float((policy * log_ratio).sum())
    mean = {estimator: float((policy * kl_estimate(log_ratio, estimator)).sum()) for estimator in KLEstimator}
    assert mean[KLEstimator.K1] == pytest.approx(exact) and mean[KLEstimator.K3] == pytest.approx(exact)
    assert mean[KLEstimator.K2] != pytest.approx(exact, rel=1e-3)
    assert (kl_estimate(log_ratio, KLEstimator.K2) >= 0).all() and (kl_estimate(log_ratio, KLEstimator.K3) >= 0).all()


def test_normalising_each_share_of_the_batch_by_itself_would_give_other_advantages() -> None:
    rewards, masks = [1.0, 0.8, 0.1, 0.0], [MASK] * 4
    whole = compute_advantages(rewards, masks, estimator=PLAIN, groups=[0, 1, 2, 3])
    shards = [
        values
        for share in (slice(2), slice(2, 4))
        for values in compute_advantages(rewards[share], masks[share], estimator=PLAIN, groups=[0, 1])
    ]
    assert whole[1][2] > 0 > shards[1][2], "a good episode among better ones"


def test_an_episode_without_sampled_tokens_is_left_alone() -> None:
    empty = np.zeros(3, dtype=bool)
    advantages = compute_advantages([1.0, 0.0], [empty, MASK], estimator=PLAIN, groups=[0, 1])
    assert advantages[0].tolist() == [0.0] * 3
    assert [row.tolist() for row in normalise([np.zeros(3)], [empty])] == [[0.0] * 3]


def test_advantages_and_losses_load_without_ray() -> None:
    code = (
        "import sys, search_agents.learning.advantages; assert 'torch' not in sys.modules\n"
        "import search_agents.learning.losses; assert 'ray' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

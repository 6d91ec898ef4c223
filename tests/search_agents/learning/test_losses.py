from __future__ import annotations

import numpy as np
import pytest
import torch
from search_agents.learning.advantages import KLEstimator
from search_agents.learning.losses import Objective, kl_loss, negative_log_likelihood, policy_loss


def tokens(number: int = 64, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    old = -torch.rand(number, generator=generator, dtype=torch.float64) * 3
    new = (old + 0.3 * torch.randn(number, generator=generator, dtype=torch.float64)).requires_grad_()
    return new, old, torch.randn(number, generator=generator, dtype=torch.float64)


def test_loss_and_metrics_are_those_of_plain_loops_in_float64() -> None:
    new, old, advantages = tokens()
    part = policy_loss(new, old, advantages, clip=0.2, num_tokens=100.0)
    loss = kl = clipped = 0.0
    for n, o, a in zip(new.tolist(), old.tolist(), advantages.tolist(), strict=True):
        ratio = np.exp(n - o)
        bounded = min(max(ratio, 0.8), 1.2)
        loss -= min(ratio * a, bounded * a) / 100
        kl += (ratio - 1 - (n - o)) / 100
        clipped += (bounded * a < ratio * a) / 100
    assert part.loss.item() == pytest.approx(loss, abs=1e-12)
    assert part.kl.item() == pytest.approx(kl, abs=1e-12)
    assert part.clip_fraction.item() == pytest.approx(clipped, abs=1e-7)
    assert 0 < clipped < 1


def test_on_policy_the_gradient_is_that_of_reinforce() -> None:
    old = torch.tensor([-1.0, -2.0, -0.5])
    new = old.clone().requires_grad_()
    advantages = torch.tensor([1.0, -2.0, 0.5])
    part = policy_loss(new, old, advantages, clip=0.2, num_tokens=4.0)
    part.loss.backward()
    torch.testing.assert_close(new.grad, -advantages / 4)
    assert part.kl.item() == part.clip_fraction.item() == 0.0


@pytest.mark.parametrize(
    ("ratio", "advantage", "flows"),
    [(1.5, 1.0, False), (1.5, -1.0, True), (0.5, 1.0, True), (0.5, -1.0, False), (1.1, 1.0, True)],
)
def test_no_gradient_where_the_ratio_has_gone_far_enough(ratio: float, advantage: float, flows: bool) -> None:
    new = torch.tensor([np.log(ratio)], requires_grad=True)
    part = policy_loss(new, torch.zeros(1), torch.tensor([advantage]), clip=0.2, num_tokens=1.0)
    part.loss.backward()
    assert new.grad is not None and bool(new.grad[0] != 0) is flows
    assert part.clip_fraction.item() == float(not flows)


def test_parts_of_a_minibatch_add_up_to_the_whole() -> None:
    whole = policy_loss(*tokens(), clip=0.2, num_tokens=64.0)
    cuts = [policy_loss(*(t[s] for t in tokens()), clip=0.2, num_tokens=64.0) for s in (slice(20), slice(20, 64))]
    for name in whole._fields:
        assert sum(getattr(cut, name).item() for cut in cuts) == pytest.approx(getattr(whole, name).item())


def test_no_tokens_give_a_loss_of_zero_that_can_be_differentiated() -> None:
    new = torch.zeros(0, requires_grad=True)
    part = policy_loss(new, torch.zeros(0), torch.zeros(0), clip=0.2, num_tokens=1.0)
    part.loss.backward()
    assert part.loss.item() == 0.0


def test_the_negative_log_likelihood_is_the_mean_over_the_tokens_of_the_minibatch() -> None:
    logprobs = torch.tensor([-1.0, -2.0, -0.5], dtype=torch.float64, requires_grad=True)
    loss = negative_log_likelihood(logprobs, num_tokens=5.0)
    loss.backward()
    assert loss.item() == pytest.approx(0.7, abs=1e-12)
    torch.testing.assert_close(logprobs.grad, torch.full((3,), -0.2, dtype=torch.float64))


def reference_loss(
    new: list[float], old: list[float], advantages: list[float], counts: list[int], weights: list[float], kind: str
) -> float:
    """The formulas of the papers in float64, with clip 0.2 below and 0.3 above."""
    loss, start = 0.0, 0
    for count in counts:
        rows = range(start, start + count)
        mean = sum(new[t] - old[t] for t in rows) / count if count else 0.0
        for t in rows:
            ratio = np.exp(mean if kind == "gspo" else new[t] - old[t])
            if kind == "cispo":
                term = min(ratio, 1.3) * advantages[t] * new[t]
            else:
                term = min(ratio * advantages[t], min(max(ratio, 0.8), 1.3) * advantages[t])
            loss -= weights[t] * term / 100
        start += count
    return loss


@pytest.mark.parametrize("kind", ["ppo", "gspo", "cispo"])
def test_each_objective_is_that_of_its_formula_in_value_and_gradient(kind: str) -> None:
    new, old, advantages = tokens(12, seed=3)
    counts = [5, 0, 4, 3]
    weights = torch.tensor([0.5] * 5 + [2.0] * 4 + [1.0] * 3, dtype=torch.float64)
    settings = {"clip": 0.2, "clip_high": 0.3, "num_tokens": 100.0, "objective": Objective(kind)}
    part = policy_loss(new, old, advantages, counts=torch.tensor(counts), weights=weights, **settings)
    plain = [each.tolist() for each in (new, old, advantages)]
    assert part.loss.item() == pytest.approx(reference_loss(*plain, counts, weights.tolist(), kind), abs=1e-12)
    part.loss.backward()
    assert new.grad is not None
    if kind == "ppo":  # the other two stop a gradient, so theirs is that of another function
        for t in range(12):
            values = []
            for step in (1e-6, -1e-6):
                moved = [value + step * (i == t) for i, value in enumerate(plain[0])]
                values.append(reference_loss(moved, *plain[1:], counts, weights.tolist(), kind))
            assert new.grad[t].item() == pytest.approx((values[0] - values[1]) / 2e-6, abs=1e-7)
    if kind == "cispo":
        capped = np.minimum(np.exp(np.array(plain[0]) - plain[1]), 1.3)
        np.testing.assert_allclose(new.grad, -capped * plain[2] * weights.numpy() / 100, atol=1e-12)


def test_gspo_has_the_gradient_of_its_episode_ratio_where_it_is_not_clipped() -> None:
    new, old, _ = tokens(6, seed=1)
    advantages = torch.tensor([1.5] * 4 + [-0.5] * 2, dtype=torch.float64)
    counts = torch.tensor([4, 2])
    part = policy_loss(
        new, old, advantages, clip=0.9, clip_high=9.0, num_tokens=1.0, objective=Objective.GSPO, counts=counts
    )
    part.loss.backward()
    theirs = new.detach().clone().requires_grad_()
    ratio = torch.stack([(theirs[:4] - old[:4]).mean().exp(), (theirs[4:] - old[4:]).mean().exp()])
    # GSPO, eq. 5, with each episode counted as often as it has tokens.
    (-(ratio * torch.tensor([1.5 * 4, -0.5 * 2], dtype=torch.float64)).sum()).backward()
    torch.testing.assert_close(new.grad, theirs.grad)


def test_clip_higher_lets_unlikely_tokens_rise_further() -> None:
    def grad(ratio: float, clip_high: float | None) -> float:
        new = torch.tensor([np.log(ratio)], requires_grad=True)
        policy_loss(new, torch.zeros(1), torch.ones(1), clip=0.2, clip_high=clip_high, num_tokens=1.0).loss.backward()
        assert new.grad is not None
        return float(new.grad)

    assert grad(1.25, None) == 0 and grad(1.25, 0.28) < 0 and grad(1.29, 0.28) == 0
    assert grad(0.5, 0.28) < 0, "below 1 nothing changes"


def test_the_kl_loss_is_that_of_plain_loops_in_float64() -> None:
    new, reference, weights = tokens(8, seed=5)
    for kind, formula in {"k1": lambda d: d, "k2": lambda d: d**2 / 2, "k3": lambda d: np.exp(-d) - 1 + d}.items():
        loss = kl_loss(new, reference, estimator=KLEstimator(kind), num_tokens=10.0, weights=weights)
        plain = zip(new.tolist(), reference.tolist(), weights.tolist(), strict=True)
        assert loss.item() == pytest.approx(sum(w * formula(n - r) / 10 for n, r, w in plain), abs=1e-12)
    new.grad = None
    kl_loss(new, reference, estimator=KLEstimator.K2, num_tokens=1.0).backward()
    torch.testing.assert_close(new.grad, (new - reference).detach())


def test_on_policy_only_the_gradient_of_k2_is_that_of_the_kl() -> None:
    torch.manual_seed(0)
    logits = torch.randn(5, dtype=torch.float64, requires_grad=True)
    reference = torch.randn(5, dtype=torch.float64).log_softmax(-1)
    logs = logits.log_softmax(-1)
    (exact,) = torch.autograd.grad((logs.exp() * (logs - reference)).sum(), logits, retain_graph=True)
    expected = {}
    for estimator in KLEstimator:  # the mean over what the policy samples of the gradient of the loss at the sample
        terms = [
            logs[x].exp().item()
            * torch.autograd.grad(
                kl_loss(logs[x : x + 1], reference[x : x + 1], estimator=estimator, num_tokens=1.0),
                logits,
                retain_graph=True,
            )[0]
            for x in range(5)
        ]
        expected[estimator] = torch.stack(terms).sum(0)
    torch.testing.assert_close(expected[KLEstimator.K2], exact)
    torch.testing.assert_close(expected[KLEstimator.K1], torch.zeros_like(exact))
    assert not torch.allclose(expected[KLEstimator.K3], exact, atol=1e-2)

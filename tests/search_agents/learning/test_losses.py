from __future__ import annotations

import numpy as np
import pytest
import torch
from search_agents.learning.losses import clipped_policy_loss, negative_log_likelihood


def tokens(number: int = 64, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    old = -torch.rand(number, generator=generator, dtype=torch.float64) * 3
    new = (old + 0.3 * torch.randn(number, generator=generator, dtype=torch.float64)).requires_grad_()
    return new, old, torch.randn(number, generator=generator, dtype=torch.float64)


def test_loss_and_metrics_are_those_of_plain_loops_in_float64() -> None:
    new, old, advantages = tokens()
    part = clipped_policy_loss(new, old, advantages, clip=0.2, num_tokens=100.0)
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
    part = clipped_policy_loss(new, old, advantages, clip=0.2, num_tokens=4.0)
    part.loss.backward()
    torch.testing.assert_close(new.grad, -advantages / 4)
    assert part.kl.item() == part.clip_fraction.item() == 0.0


@pytest.mark.parametrize(
    ("ratio", "advantage", "flows"),
    [(1.5, 1.0, False), (1.5, -1.0, True), (0.5, 1.0, True), (0.5, -1.0, False), (1.1, 1.0, True)],
)
def test_no_gradient_where_the_ratio_has_gone_far_enough(ratio: float, advantage: float, flows: bool) -> None:
    new = torch.tensor([np.log(ratio)], requires_grad=True)
    part = clipped_policy_loss(new, torch.zeros(1), torch.tensor([advantage]), clip=0.2, num_tokens=1.0)
    part.loss.backward()
    assert new.grad is not None and bool(new.grad[0] != 0) is flows
    assert part.clip_fraction.item() == float(not flows)


def test_parts_of_a_minibatch_add_up_to_the_whole() -> None:
    whole = clipped_policy_loss(*tokens(), clip=0.2, num_tokens=64.0)
    cuts = [
        clipped_policy_loss(*(t[s] for t in tokens()), clip=0.2, num_tokens=64.0) for s in (slice(20), slice(20, 64))
    ]
    for name in whole._fields:
        assert sum(getattr(cut, name).item() for cut in cuts) == pytest.approx(getattr(whole, name).item())


def test_no_tokens_give_a_loss_of_zero_that_can_be_differentiated() -> None:
    new = torch.zeros(0, requires_grad=True)
    part = clipped_policy_loss(new, torch.zeros(0), torch.zeros(0), clip=0.2, num_tokens=1.0)
    part.loss.backward()
    assert part.loss.item() == 0.0


def test_the_negative_log_likelihood_is_the_mean_over_the_tokens_of_the_minibatch() -> None:
    logprobs = torch.tensor([-1.0, -2.0, -0.5], dtype=torch.float64, requires_grad=True)
    loss = negative_log_likelihood(logprobs, num_tokens=5.0)
    loss.backward()
    assert loss.item() == pytest.approx(0.7, abs=1e-12)
    torch.testing.assert_close(logprobs.grad, torch.full((3,), -0.2, dtype=torch.float64))

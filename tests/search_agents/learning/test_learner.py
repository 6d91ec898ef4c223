from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ray.rllib.core import COMPONENT_OPTIMIZER, DEFAULT_MODULE_ID
from search_agents.learning.learner import ADAM_BETAS, ReinforcePPTorchLearner, micro_batches
from search_agents.learning.learner_group import Row, build_batches


def make_rows(number: int = 11, seed: int = 0) -> list[Row]:
    """Random episodes of 8 to 40 tokens, sampled and observed in turns."""
    rng = np.random.default_rng(seed)
    rows = []
    for length in rng.integers(8, 40, number):
        mask = np.repeat(rng.random(length // 4 + 1) < 0.5, 4)[:length]
        mask[0], mask[-1] = False, True
        logprobs = np.where(mask, rng.normal(-5.7, 0.1, length), 0).astype(np.float32)
        advantages = np.where(mask, rng.normal(size=length), 0).astype(np.float32)
        ids = rng.integers(3, 300, length)
        rows.append(Row(input_ids=ids, action_mask=mask, logprobs=logprobs, advantages=advantages))
    return rows


@pytest.fixture
def make_learner(make_config: Callable[..., Any]) -> Callable[..., ReinforcePPTorchLearner]:
    def build(**training: Any) -> ReinforcePPTorchLearner:
        learner: ReinforcePPTorchLearner = make_config(**training).build_learner()
        return learner

    return build


def update(learner: ReinforcePPTorchLearner, rows: list[Row], minibatch_size: int, **kwargs: Any) -> dict[str, float]:
    (batch,) = build_batches(rows, minibatch_size=minibatch_size, num_shares=1)
    result = learner.update(batch=batch, **kwargs)[DEFAULT_MODULE_ID]
    return {name: stats.peek() for name, stats in result.items() if hasattr(stats, "peek")}


def weights(learner: ReinforcePPTorchLearner) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in learner.module[DEFAULT_MODULE_ID].model.named_parameters()}


def assert_same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor], atol: float = 5e-5) -> None:
    """Weights after steps of AdamW of 1e-3, which makes a whole step of a gradient near 0, rounding and all."""
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=atol, msg=lambda text, n=name: f"{n}: {text}")


def test_a_step_is_that_of_the_plain_loss_over_all_rows_at_once(make_learner: Callable[..., Any]) -> None:
    rows = make_rows()
    learner, plain = make_learner(micro_batch_tokens=60, grad_clip=0.5), make_learner()
    result = update(learner, rows, minibatch_size=len(rows))
    model = plain.module[DEFAULT_MODULE_ID].model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=ADAM_BETAS, weight_decay=0.0)
    total, loss = sum(row.action_mask.sum() for row in rows), 0.0
    for row in rows:
        ids = torch.from_numpy(row.input_ids)[None]
        logs = model(input_ids=ids).logits[0, :-1].log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0]
        ratio = (logs - torch.from_numpy(row.logprobs[1:])).exp()
        advantages = torch.from_numpy(row.advantages[1:])
        terms = torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)
        loss = loss - (terms * torch.from_numpy(row.action_mask[1:])).sum() / total
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 0.5)
    optimizer.step()
    assert result["loss"] == pytest.approx(loss.item(), abs=1e-5)
    assert result["grad_norm"] == pytest.approx(norm.item(), rel=1e-4)
    assert_same(weights(learner), weights(plain))


def test_neither_the_size_of_the_micro_batches_nor_packing_changes_anything(make_learner: Callable[..., Any]) -> None:
    rows, results = make_rows(), []
    for tokens, packing in ((1, True), (100, True), (100_000, True), (100, False), (100_000, False)):
        learner = make_learner(micro_batch_tokens=tokens, packing=packing)
        results.append((update(learner, rows, minibatch_size=4), weights(learner)))
    for metrics, tensors in results[1:]:
        assert_same(tensors, results[0][1])
        for name in ("loss", "entropy", "kl", "clip_fraction", "grad_norm"):
            assert metrics[name] == pytest.approx(results[0][0][name], rel=1e-3, abs=1e-6), name


def test_computing_once_what_all_rows_begin_with_changes_nothing(make_learner: Callable[..., Any]) -> None:
    rows = [
        Row(
            input_ids=np.concatenate([np.arange(3, 33), row.input_ids]),
            **{
                name: np.concatenate([np.zeros(30, dtype=getattr(row, name).dtype), getattr(row, name)])
                for name in ("action_mask", "logprobs", "advantages")
            },
        )
        for row in make_rows()
    ]
    results = []
    for tokens, packing in ((1, True), (150, True), (100_000, False)):
        learner = make_learner(micro_batch_tokens=tokens, packing=packing)
        computed: list[int] = []
        body = learner.module[DEFAULT_MODULE_ID].unwrapped().model.base_model.layers[0]
        body.register_forward_hook(lambda _, __, out, seen=computed: seen.append(out[0].shape[-2]))
        results.append((update(learner, rows, minibatch_size=11), weights(learner), computed))
    (one_by_one, plain, all_tokens), (together, ours, fewer), (padded, theirs, _) = results
    assert sum(fewer) == sum(all_tokens) - 30 * (len(rows) - len(fewer))
    assert len(fewer) == len(all_tokens) // 4 + 1 and max(fewer) <= 150
    for metrics, tensors in ((together, ours), (padded, theirs)):
        assert_same(tensors, plain)
        assert metrics["grad_norm"] == pytest.approx(one_by_one["grad_norm"], rel=1e-3)


def test_each_row_is_trained_on_once_an_epoch_in_exact_minibatches(make_learner: Callable[..., Any]) -> None:
    learner = make_learner()
    seen: list[list[int]] = []
    forward = learner.module.forward_train

    def spy(batch: Any) -> Any:
        seen.append(batch[DEFAULT_MODULE_ID]["input_ids"][:, 1].tolist())
        return forward(batch)

    learner.module.forward_train = spy
    rows = make_rows(11)
    update(learner, rows, minibatch_size=4, num_epochs=2)
    firsts = [int(row.input_ids[1]) for row in rows]
    expected = [sorted(firsts[:4]), sorted(firsts[4:8]), sorted(firsts[8:])]
    assert [sorted(batch) for batch in seen] == expected * 2
    assert optimizer_steps(learner) == {6}


def optimizer_steps(learner: ReinforcePPTorchLearner) -> set[int]:
    (optimizer,) = learner._named_optimizers.values()
    return {int(state["step"]) for state in optimizer.state.values()}


def test_a_step_with_a_gradient_that_is_not_finite_is_skipped(make_learner: Callable[..., Any]) -> None:
    learner, rows = make_learner(), make_rows(4)
    before = weights(learner)
    rows[0].advantages[-1] = np.nan
    result = update(learner, rows, minibatch_size=4)
    assert result["skipped_steps"] == 1.0
    assert_same(weights(learner), before, atol=0)
    assert optimizer_steps(learner) == set()
    rows[0].advantages[-1] = 1.0
    assert update(learner, rows, minibatch_size=4)["skipped_steps"] == 0.0
    assert optimizer_steps(learner) == {1}


def test_a_state_comes_back_even_over_a_newer_one(make_learner: Callable[..., Any]) -> None:
    learner, rows = make_learner(), make_rows()
    update(learner, rows, minibatch_size=4)
    state, old = learner.get_state(), weights(learner)
    update(learner, rows, minibatch_size=4)
    newer = weights(learner)
    learner.set_state(state)
    assert_same(weights(learner), old, atol=0)
    assert optimizer_steps(learner) == {3}
    update(learner, rows, minibatch_size=4)
    assert_same(weights(learner), newer, atol=0)


def test_adapters_on_bfloat16_weights_are_trained_in_float32_and_survive_a_round_trip(
    make_learner: Callable[..., Any],
) -> None:
    pytest.importorskip("peft")
    settings = {"dtype": "bfloat16", "lora": {"rank": 4, "alpha": 8.0}, "lr": 1e-6}
    learner, rows = make_learner(**settings), make_rows()
    before = weights(learner)
    for _ in range(2):  # the first leaves A, whose gradient is 0 as long as B is
        update(learner, rows, minibatch_size=4)
    for name, weight in weights(learner).items():
        assert weight.dtype == (torch.float32 if ".lora_" in name else torch.bfloat16), name
        moved = (weight != before[name]).float().mean()
        assert moved > 0.95 if ".lora_" in name else moved == 0, f"{name}: {moved:.0%} of it moved"
    other = make_learner(**settings)
    other.set_state(learner.get_state())
    entry = next(iter(other.get_state()[COMPONENT_OPTIMIZER].values()))["state"]["state"][0]
    assert entry["exp_avg"].dtype == "float32"
    for one in (learner, other):
        update(one, rows, minibatch_size=4)
    assert_same(weights(learner), weights(other), atol=0)


def test_frozen_parameters_are_left_out_of_the_optimizer(make_learner: Callable[..., Any]) -> None:
    learner = make_learner()
    learner._reset()
    learner.module[DEFAULT_MODULE_ID].model.get_input_embeddings().weight.requires_grad_(False)
    learner.configure_optimizers()
    before = weights(learner)
    update(learner, make_rows(), minibatch_size=4)
    after = weights(learner)
    changed = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert changed == set(after) - {"model.embed_tokens.weight"}


@given(st.lists(st.integers(10, 50), min_size=1, max_size=30), st.integers(1, 200), st.integers(0, 9))
def test_what_all_rows_begin_with_counts_once_in_a_micro_batch(lengths: list[int], budget: int, shared: int) -> None:
    parts = [part.tolist() for part in micro_batches(torch.tensor(lengths), budget, shared=shared)]
    assert sorted(index for part in parts for index in part) == list(range(len(lengths)))

    def fits(part: list[int]) -> bool:
        read = sum(lengths[index] for index in part)
        return read - shared * (len(part) - 1) <= budget and read <= 4 * budget

    assert all(len(part) == 1 or fits(part) for part in parts)
    assert not any(fits([*part, following[0]]) for part, following in itertools.pairwise(parts))


def test_many_short_rows_behind_a_long_beginning_do_not_all_keep_its_keys_at_once() -> None:
    parts = micro_batches(torch.full((60,), 1550), 4096, shared=1500)
    assert [len(part) for part in parts] == [10] * 6


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(1, 200), st.booleans())
def test_micro_batches_hold_every_row_once_within_the_budget(lengths: list[int], budget: int, padded: bool) -> None:
    parts = [part.tolist() for part in micro_batches(torch.tensor(lengths), budget, padded=padded)]
    assert sorted(index for part in parts for index in part) == list(range(len(lengths)))
    for part in parts:
        computed = [lengths[index] for index in part]
        assert len(part) == 1 or (len(part) * max(computed) if padded else sum(computed)) <= budget
    for part, following in itertools.pairwise(parts):
        assert max(lengths[i] for i in part) <= min(lengths[i] for i in following)

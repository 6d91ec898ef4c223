"""TRL's own `GRPOTrainer` trains the shipped model with our rollouts."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from search_agents.engines.pretrained import load_pretrained
from search_agents.interop.trl import SearchRollout, environment_reward
from search_agents.models import find_model

from search_env.errors import RetrieverUnavailable

ENV = "SearchQA-FictionalWiki-v0"
TINY = {"prompt": "bare", "max_segment_tokens": 96, "max_episode_tokens": 768}


class Broken:
    """Fails for good at every search."""

    fingerprint = "broken"

    def search(self, queries: Any, top_k: int) -> Any:
        raise RetrieverUnavailable("the index is gone")


@pytest.fixture(scope="module")
def tiny() -> tuple[Any, Any]:
    return load_pretrained(find_model("tiny"), dtype="float32")


@pytest.fixture
def standing_in(tiny: tuple[Any, Any]) -> SimpleNamespace:
    """What a rollout needs of a trainer."""
    model, tokenizer = tiny
    unwrap = SimpleNamespace(unwrap_model=lambda wrapped: wrapped)
    return SimpleNamespace(accelerator=unwrap, model=model, processing_class=tokenizer, temperature=1.0)


def test_columns_are_the_episodes_token_by_token(standing_in: SimpleNamespace) -> None:
    rollout = SearchRollout(ENV, **TINY, num_envs=3, reward="stage1")
    asked = [row["prompt"] for row in rollout.rows()[:5]]
    columns = rollout(asked, standing_in)
    assert [episode.question_id for episode in rollout.episodes] == asked
    for place, episode in enumerate(rollout.episodes):
        ids = columns["prompt_ids"][place] + columns["completion_ids"][place]
        assert ids == episode.token_ids.tolist()
        mask = np.array(columns["env_mask"][place], dtype=bool)
        assert mask.sum() == episode.action_mask.sum() > 0
        assert len(mask) == len(columns["completion_ids"][place]) == len(columns["logprobs"][place])
        assert not np.array(columns["logprobs"][place])[~mask].any()
        assert columns["environment_reward"][place] == episode.reward
    assert any(0 in mask for mask in columns["env_mask"]), "no episode has searched"


def test_the_same_seed_samples_the_same_and_each_call_anew(standing_in: SimpleNamespace) -> None:
    first, again = SearchRollout(ENV, **TINY, seed=3), SearchRollout(ENV, **TINY, seed=3)
    asked = [first.rows()[0]["prompt"]] * 2
    one, other = first(asked, standing_in), again(asked, standing_in)
    assert one == other
    assert first(asked, standing_in)["completion_ids"] != one["completion_ids"]


def test_an_episode_whose_search_failed_has_no_reward(standing_in: SimpleNamespace) -> None:
    rollout = SearchRollout(ENV, **TINY, retriever=Broken())
    rewards = rollout([row["prompt"] for row in rollout.rows()[:32]], standing_in)["environment_reward"]
    assert [reward is None for reward in rewards] == [not episode.valid for episode in rollout.episodes]
    assert {True, False} == {reward is None for reward in rewards}
    assert environment_reward(environment_reward=rewards, prompts=[], completions=[]) == rewards


def test_episodes_are_sampled_in_the_mixed_precision_of_the_trainer(tiny: tuple[Any, Any]) -> None:
    accelerate = pytest.importorskip("accelerate")
    state = accelerate.state.AcceleratorState
    state._reset_state(reset_partial_state=True)
    model, tokenizer = copy.deepcopy(tiny[0]), tiny[1]
    try:
        accelerator = accelerate.Accelerator(cpu=True, mixed_precision="bf16")
        trained = accelerator.prepare_model(model)
        trainer = SimpleNamespace(accelerator=accelerator, model=trained, processing_class=tokenizer, temperature=1.0)
        rollout = SearchRollout(ENV, **TINY, reward="stage1")
        rollout([row["prompt"] for row in rollout.rows()[:8]], trainer)
        apart = {forward: _nats_apart(forward, rollout.episodes) for forward in (trained, tiny[0])}
    finally:
        state._reset_state(reset_partial_state=True)
    assert apart[trained] < apart[tiny[0]] / 2, "sampled in another format than it is trained in"


def _nats_apart(forward: Any, episodes: list[Any]) -> float:
    """How far the log-probs of sampled tokens are from those of one pass over each whole episode, on average."""
    distances = []
    for episode in episodes:
        ids = torch.tensor(episode.token_ids)[None].long()
        with torch.no_grad():
            found = forward(input_ids=ids).logits.float().log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])[:, 0]
        sampled = episode.action_mask[1:].astype(bool)
        distances.append(np.abs(episode.logprobs[1:] - found.numpy())[sampled])
    return float(np.concatenate(distances).mean())


def test_the_trainer_learns_with_our_rollouts(tiny: tuple[Any, Any], tmp_path: Any, monkeypatch: Any) -> None:
    trl = pytest.importorskip("trl", reason="pip install 'search-env[trl]'")
    from datasets import Dataset

    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    rollout = SearchRollout(ENV, **TINY, reward="stage1")
    model, tokenizer = tiny
    batches: list[dict[str, Any]] = []

    class Watched(trl.GRPOTrainer):  # type: ignore[misc]
        def _generate_and_score_completions(self, inputs: Any) -> Any:
            batches.append(super()._generate_and_score_completions(inputs))
            return batches[-1]

    before = {name: weight.clone() for name, weight in model.named_parameters()}
    trainer = Watched(
        model=model,
        reward_funcs=environment_reward,
        rollout_func=rollout,
        train_dataset=Dataset.from_list(rollout.rows()[:8]),
        processing_class=tokenizer,
        args=trl.GRPOConfig(
            output_dir=str(tmp_path), per_device_train_batch_size=16, num_generations=8, max_steps=1, logging_steps=1,
            learning_rate=1e-4, temperature=1.0, report_to=[], use_cpu=True, bf16=False, save_strategy="no",
        ),
    )  # fmt: skip
    trainer.train()
    (batch,) = batches
    rewards = torch.tensor([episode.reward for episode in rollout.episodes])
    assert len(rewards) == 16
    groups = rewards.view(2, 8)
    expected = (groups - groups.mean(1, keepdim=True)) / (groups.std(1, keepdim=True) + 1e-4)
    assert torch.allclose(batch["advantages"].view(2, 8), expected, atol=1e-4)
    assert groups.std(1).max() > 0, "every reward is the same; there is nothing to learn from"
    for row, episode in enumerate(rollout.episodes):
        begin = len(episode.segments[0].token_ids)
        length = len(episode.token_ids) - begin
        assert batch["tool_mask"][row][:length].bool().tolist() == episode.action_mask[begin:].tolist()
        assert batch["completion_ids"][row][:length].tolist() == episode.token_ids[begin:].tolist()
    assert any(not torch.equal(weight, before[name]) for name, weight in model.named_parameters())

"""Data-parallel learners: what they compute together is what one computes alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from safetensors.torch import load_file
from search_agents.learning import SupervisedConfig
from search_agents.learning.checkpoint import load_checkpoint, save_checkpoint
from search_agents.learning.learner_group import EpisodeLearnerGroup, Row
from search_agents.learning.rl_module import unpack
from search_agents.rollout import Episode, SegmentKind, TokenSegment
from torch.distributed.tensor import DTensor

from search_env.errors import ConfigError
from search_env.types import FormatVerdict, Question, StopReason, Transcript

pytestmark = pytest.mark.usefixtures("ray_cluster")


def make_rows(number: int) -> list[Row]:
    rng = np.random.default_rng(0)
    rows = []
    for length in rng.integers(8, 60, number):
        mask = rng.random(length) < 0.4
        mask[0], mask[-1] = False, True
        rows.append(
            Row(
                input_ids=rng.integers(3, 300, length),
                action_mask=mask,
                logprobs=np.where(mask, rng.normal(-5.7, 0.1, length), 0).astype(np.float32),
                advantages=np.where(mask, rng.normal(size=length), 0).astype(np.float32),
            )
        )
    return rows


def train(group: EpisodeLearnerGroup, rows: list[Row]) -> dict[str, float]:
    """Two updates of three steps, the last step with fewer rows; returns the metrics over all learners."""
    for update in range(2):
        results = group.update_on(rows, minibatch_size=5, order=np.random.default_rng(update).permutation(len(rows)))
    parts = [result[DEFAULT_MODULE_ID] for result in results]
    summed = {name: sum(part[name].peek() for part in parts) for name in ("loss", "entropy", "kl", "clip_fraction")}
    return summed | {"grad_norm": np.mean([part["grad_norm"].peek() for part in parts])}


@pytest.mark.parametrize("sharded", [False, True])
def test_two_learners_give_the_update_of_one(make_config: Callable[..., Any], sharded: bool) -> None:
    rows = make_rows(11)
    settings = {"micro_batch_tokens": 100, "kl_coef": 0.1, "grad_clip": 0.5}
    alone = make_config(**settings).build_learner_group()
    config = make_config(**settings, sharded=sharded, gradient_checkpointing=sharded)
    together = config.learners(num_learners=2, num_cpus_per_learner=1).build_learner_group()
    references = [group.compute_logprobs(rows, reference=True) for group in (alone, together)]
    for one, two in zip(*references, strict=True):
        np.testing.assert_allclose(one, two, atol=1e-5)
    assert np.abs(np.concatenate(references[0])).sum() > 100

    expected, found = train(alone, rows), train(together, rows)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-3, abs=1e-6), name

    key = f"{COMPONENT_LEARNER}/{COMPONENT_RL_MODULE}"
    states = [
        group.get_state(components=key)[COMPONENT_LEARNER][COMPONENT_RL_MODULE][DEFAULT_MODULE_ID]
        for group in (alone, together)
    ]
    initial = make_config().build_learner().module[DEFAULT_MODULE_ID].get_state()
    for name, packed in states[0].items():
        np.testing.assert_allclose(states[1][name].data, packed.data, atol=1e-5, err_msg=name)
    moved = max(float((unpack(states[0][name]) - unpack(initial[name])).abs().max()) for name in initial)
    assert moved > 1e-3, "or the comparison would say nothing"

    held = [
        result.get()
        for result in together.foreach_learner(
            lambda learner: local(learner.module[DEFAULT_MODULE_ID].unwrapped().model.lm_head.weight).detach().numpy()
        )
    ]
    if sharded:
        assert len(held[0]) == len(held[1]) == len(states[0]["lm_head.weight"].data) / 2
    else:
        np.testing.assert_array_equal(held[0], held[1])
    together.shutdown()


def local(tensor: torch.Tensor) -> torch.Tensor:
    """What this process holds of it."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def make_episode(number: int) -> Episode:
    rng = np.random.default_rng(number)
    kinds = [SegmentKind.PROMPT, SegmentKind.SAMPLED, SegmentKind.OBSERVATION, SegmentKind.SAMPLED]
    ids = [tuple(rng.integers(3, 300, length).tolist()) for length in rng.integers(2, 15, len(kinds))]
    logprobs = [(0.0,) * len(row) if kind is SegmentKind.SAMPLED else () for kind, row in zip(kinds, ids, strict=True)]
    question = Question(id=str(number), text="?", answers=("a",))
    return Episode(
        question_id=question.id,
        group=number,
        segments=tuple(TokenSegment(*each, "") for each in zip(kinds, ids, logprobs, strict=True)),
        transcript=Transcript(question=question, turns=(), stop_reason=StopReason.ANSWERED, format=FormatVerdict()),
        reward=1.0,
        reward_parts={},
        metrics={},
        stop_reason=StopReason.ANSWERED,
        valid=True,
    )


def test_two_learners_imitate_as_one_does(policy_folder: Path, tmp_path: Path, start: Callable[[Any], Any]) -> None:
    config = SupervisedConfig().training(model=policy_folder, lr=1e-3, minibatch_size=5, autocast=False, epochs=1)
    episodes, models, losses = [make_episode(number) for number in range(8)], [], []
    for learners in (0, 2):
        algorithm = start(config.copy(copy_frozen=False).learners(num_learners=learners, num_cpus_per_learner=1))
        algorithm.imitate(episodes)
        results = [algorithm.train()["learners"][DEFAULT_MODULE_ID] for _ in range(algorithm.max_steps)]
        losses.append([result["loss"] for result in results])
        algorithm.save_model(tmp_path / str(learners))
        models.append(load_file(tmp_path / str(learners) / "model.safetensors"))
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    before = load_file(policy_folder / "model.safetensors")
    for name, tensor in models[0].items():
        np.testing.assert_allclose(models[1][name], tensor, atol=1e-5, err_msg=name)
    assert max(float((tensor - before[name]).abs().max()) for name, tensor in models[0].items()) > 1e-3


def test_a_checkpoint_of_sharded_learners_goes_on_anywhere(
    policy_folder: Path, tmp_path: Path, start: Callable[[Any], Any]
) -> None:
    config = SupervisedConfig().training(model=policy_folder, lr=1e-3, minibatch_size=3, autocast=False, epochs=1)
    sharded = config.copy(copy_frozen=False).training(sharded=True).learners(num_learners=2, num_cpus_per_learner=1)
    episodes = [make_episode(number) for number in range(9)]
    algorithms = [start(each) for each in (sharded, config, sharded)]
    for algorithm in algorithms:
        algorithm.imitate(episodes)
    first, alone, again = algorithms
    first.train()
    load_checkpoint(alone, save_checkpoint(first, tmp_path / "first"))
    alone.train()
    load_checkpoint(again, save_checkpoint(alone, tmp_path / "alone"))
    group = again.learner_group
    group.set_state(group.get_state())  # RLlib's own checkpoints hold the same
    again.train()
    again.save_model(tmp_path / "again")
    for _ in range(2):
        first.train()
    first.save_model(tmp_path / "whole")
    found, expected = (load_file(tmp_path / name / "model.safetensors") for name in ("again", "whole"))
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        np.testing.assert_allclose(found[name], tensor, atol=1e-5, err_msg=name)


def test_sharding_needs_learners_and_all_weights(make_config: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match="num_learners >= 2"):
        make_config(sharded=True).validate()
    with pytest.raises(ConfigError, match="no lora"):
        make_config(sharded=True, lora={"rank": 2, "alpha": 2.0}).learners(num_learners=2).validate()

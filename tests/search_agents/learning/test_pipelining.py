"""The next batch is sampled while the learner trains: what a loop by hand gives, whenever it is stopped."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import torch
from pydantic import ValidationError
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from search_agents.config import TrainConfig
from search_agents.learning import ReinforcePP
from search_agents.learning.aggregation import Aggregation
from search_agents.learning.build import algorithm_config
from search_agents.learning.checkpoint import bytes_needed, load_checkpoint, save_checkpoint
from search_agents.learning.pipelining import in_background
from search_agents.learning.preparation import prepare_rows
from search_agents.learning.prompts import tasks_of_step
from search_agents.learning.step_record import metrics_row

from search_env.errors import ConfigError, RetrieverUnavailable

STAGES = [{"name": "a", "reward": "stage1", "max_steps": 2}, {"name": "b", "reward": "stage2", "max_steps": 4}]
SETTINGS: dict[str, Any] = {"stages": STAGES, "dynamic_sampling": 1, "lr": 1e-2}


def tokens(episodes: list[Any]) -> list[list[int]]:
    return [episode.token_ids.tolist() for episode in episodes]


def weights(algo: ReinforcePP, folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    algo.save_model(folder)
    return load_file(folder / "model.safetensors")


def with_signal(episodes: list[Any]) -> list[Any]:
    """The episodes of groups that did not all earn the same."""
    rewards: dict[int, set[float]] = {}
    for episode in episodes:
        rewards.setdefault(episode.group, set()).add(episode.reward)
    return [episode for episode in episodes if len(rewards[episode.group]) > 1]


def by_hand(algo: ReinforcePP, steps: int) -> list[list[Any]]:
    """The episodes of one-step-off-policy training in one process: sample the next batch, then learn from this one."""
    config, runner, learners = algo.config, algo.env_runner, algo.learner_group

    def sample(step: int) -> list[Any]:
        stage = STAGES[0] if step < 2 else STAGES[1]
        episodes: list[Any] = []
        for attempt in range(2):
            missing = 4 - len({episode.group for episode in with_signal(episodes)})
            if missing:
                named = {"prompts_per_batch": missing, "group_size": 3, "seed": 0, "attempt": attempt}
                tasks = tasks_of_step(step, num_questions=5, **named)
                episodes += runner.sample(tasks=tasks, reward=stage["reward"], progress=(step, 6))
        return episodes

    batches = [sample(0)]
    for step in range(steps):
        batches.append(sample(step + 1))
        rows = prepare_rows(with_signal(batches[step]), config, learners, lambda *_: None)
        if rows:
            order = np.random.default_rng([0, step, 1]).permutation(len(rows))
            learners.update_on(
                rows, minibatch_size=5, order=order, aggregation=Aggregation.TOKEN, timesteps={}, num_epochs=1
            )
    return batches


@pytest.mark.usefixtures("ray_cluster")
def test_a_run_that_samples_ahead_is_the_loop_by_hand_and_goes_on_where_it_was_stopped(
    make_config: Callable[..., Any],
    start: Callable[[Any], Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = by_hand(hand := start(make_config(**SETTINGS)), 4)
    algo = start(make_config(**SETTINGS, max_staleness=1).env_runners(num_env_runners=1, num_envs_per_env_runner=6))
    rows: list[dict[str, Any]] = []
    stopped: dict[str, Callable[[], Any]] = {}
    for step in range(4):
        rows.append(metrics_row(algo.train(), step=step + 1))
        assert tokens(algo.episodes) == tokens(expected[step]), f"step {step + 1}"
        if step == 1:  # between the stages, with the first batch of the second one on its way
            ours, rllibs = save_checkpoint(algo, tmp_path / "ours"), algo.save_to_path(tmp_path / "rllib")
            stopped = {"ours": partial(load_checkpoint, algo, ours), "rllib": partial(algo.restore_from_path, rllibs)}
    assert [row["staleness"] for row in rows] == [0, 1, 1, 1]
    assert [row["stage"] for row in rows] == ["a", "a", "b", "b"]
    assert ["reward_cem" in row or "reward_f1" in row for row in rows] == [False, False, True, True]
    final = weights(algo, tmp_path / "final")
    for name, tensor in weights(hand, tmp_path / "hand").items():
        torch.testing.assert_close(final[name], tensor, atol=1e-5, rtol=1e-4, msg=name)

    # The weights of the batch in flight are older than the learner's, and the checkpoint holds both.
    for what, restore in stopped.items():
        restore()
        assert (algo.steps_done, algo.stage) == (2, "b")
        for step in (2, 3):
            row = metrics_row(algo.train(), step=step + 1)
            timeless = {name: value for name, value in row.items() if not name.endswith("_seconds")}
            assert timeless == {name: rows[step][name] for name in timeless}, what
            assert tokens(algo.episodes) == tokens(expected[step]), what
        for name, tensor in weights(algo, tmp_path / what).items():
            assert torch.equal(final[name], tensor), f"{what}: {name}"

    # A runner that is killed with a batch in flight is replaced, and the new one plays it again.
    load_checkpoint(algo, tmp_path / "ours")
    algo.train()
    ray.kill(algo.env_runner_group._worker_manager._actors[1])
    row = metrics_row(algo.train(), step=4)
    assert row["replaced_runners"] == 1 and tokens(algo.episodes) == tokens(expected[3])

    # An error of the batch in flight is told by the step that would train on it, and no sooner.
    def fails(request: Any) -> list[Any]:
        raise RetrieverUnavailable(f"the retriever is gone at step {request.step + 1}")

    with monkeypatch.context() as patch:
        patch.setattr(algo, "_sample_batch", fails)
        algo.train()
        with pytest.raises(RetrieverUnavailable, match="gone at step 6"):
            algo.train()
    assert algo.steps_done == 5
    algo.train()
    assert algo.finished and algo.get_sampler() is None, "nothing is sampled after the last step"


def test_a_checkpoint_without_a_sampler_starts_on_policy_and_one_process_has_none(
    make_config: Callable[..., Any], start: Callable[[Any], Any], tmp_path: Path
) -> None:
    algo = start(make_config())
    result = algo.train()
    assert "staleness" not in metrics_row(result, step=1)
    folder = save_checkpoint(algo, tmp_path / "c")
    assert not (folder / "sampler.safetensors").exists() and algo.get_sampler() is None
    algo.set_sampler(algo.env_runner.get_state()[COMPONENT_RL_MODULE][DEFAULT_MODULE_ID])
    assert algo.get_sampler() is None, "that of a run with another setting has no effect"
    plain = bytes_needed(algo, 1)
    algo.config = algo.config.copy(copy_frozen=False)
    algo.config.max_staleness = 1
    assert bytes_needed(algo, 1) > 1.2 * plain


def test_what_is_done_in_the_background_comes_back_be_it_a_result_or_an_error() -> None:
    go_on = threading.Event()
    future = in_background(lambda: go_on.wait(5))
    assert not future.done()
    go_on.set()
    assert future.result(5) is True
    with pytest.raises(ZeroDivisionError):
        in_background(lambda: 1 / 0).result(5)


def test_sampling_ahead_needs_processes_that_sample(make_config: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match=r"num_env_runners is 0.*env_runners\(num_env_runners=1\)"):
        make_config(max_staleness=1).validate()
    with pytest.raises(ConfigError, match="max_staleness is 2; give 0"):
        make_config(max_staleness=2).env_runners(num_env_runners=1).validate()
    with pytest.raises(ValidationError, match=r"write --rollout\.num-env-runners 1"):
        TrainConfig.model_validate({"rollout": {"max_staleness": 1}})
    recipe = TrainConfig.model_validate({"rollout": {"max_staleness": 1, "num_env_runners": 2}})
    made = algorithm_config(recipe)
    assert (made.max_staleness, made.num_env_runners) == (1, 2)

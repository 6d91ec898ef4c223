"""Runners and a learner in processes of their own give the run of one process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from search_agents.learning import ReinforcePP
from search_agents.learning.checkpoint import load_checkpoint, save_checkpoint

from search_env.errors import ConfigError

pytestmark = pytest.mark.usefixtures("ray_cluster")

STAGES = [{"name": "a", "reward": "stage1", "max_steps": 1}, {"name": "b", "reward": "stage2", "max_steps": 2}]


def weights(algo: ReinforcePP, folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    algo.save_model(folder)
    return load_file(folder / "model.safetensors")


def test_remote_runners_and_learner_give_the_run_of_one_process(
    make_config: Callable[..., Any], start: Callable[[Any], Any], tmp_path: Path
) -> None:
    local = start(make_config(stages=STAGES))
    config = make_config(stages=STAGES).env_runners(num_env_runners=2, num_envs_per_env_runner=4)
    remote = start(config.learners(num_learners=1, num_cpus_per_learner=1))
    assert not remote.config.shares_module and remote.env_runner is None
    for _ in range(2):
        expected, found = local.train(), remote.train()
    assert [e.token_ids.tolist() for e in remote.episodes] == [e.token_ids.tolist() for e in local.episodes]
    assert set(found["env_runners"]["reward_parts"]) == {"f1", "format"}, "the second stage's reward"
    assert found["env_runners"]["episode_return_mean"] == expected["env_runners"]["episode_return_mean"]
    # Rounding differs with the rows of a batch, and Adam makes much of gradients near zero.
    ours, theirs = weights(local, tmp_path / "local"), weights(remote, tmp_path / "remote")
    for name, tensor in ours.items():
        np.testing.assert_allclose(theirs[name], tensor, atol=2e-4, err_msg=name)

    # Checkpoints do not depend on the layout, ours and RLlib's, and go back as well as forth.
    ours_at_two = save_checkpoint(remote, tmp_path / "c")
    rllibs_at_two = remote.save_to_path(tmp_path / "rllib")
    remote.train()
    local.train()
    after = [e.token_ids.tolist() for e in local.episodes]
    for restore in (lambda: load_checkpoint(remote, ours_at_two), lambda: remote.restore_from_path(rllibs_at_two)):
        restore()
        assert remote.steps_done == 2 and remote.stage == "b"
        remote.train()
        assert [e.token_ids.tolist() for e in remote.episodes] == after


def test_an_error_in_a_runner_is_told_as_it_is(make_config: Callable[..., Any], start: Callable[[Any], Any]) -> None:
    algo = start(make_config(max_episode_tokens=1 << 21).env_runners(num_env_runners=1))
    with pytest.raises(ConfigError, match="exceeds the model's context"):
        algo.train()

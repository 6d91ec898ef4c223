"""From a recipe to RLlib's configuration: who has which GPU."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from search_agents.config import EvalConfig, SFTConfig, TrainConfig
from search_agents.engines import vllm
from search_agents.engines.build import make_engine
from search_agents.learning import env_runner
from search_agents.learning.build import algorithm_config, supervised_config

from search_env.errors import ConfigError

SPREAD = {"engine": "vllm", "vllm": {"tensor_parallel_size": 4, "kv_cache_gb": 30}}


@pytest.mark.parametrize("found", [True, False])
def test_a_learner_has_a_gpu_where_there_is_one_or_what_it_is_given(
    monkeypatch: pytest.MonkeyPatch, found: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: found)
    assert algorithm_config(TrainConfig()).num_gpus_per_learner == int(found)
    assert supervised_config(SFTConfig()).num_gpus_per_learner == int(found)
    given = TrainConfig.model_validate(
        {
            "learner": {"num_gpus_per_learner": int(not found), "num_learners": 2, "sharded": True},
            "rollout": {"num_env_runners": 4, "num_gpus_per_env_runner": 0.5},
        }
    )
    made = algorithm_config(given)
    assert made.num_gpus_per_learner == int(not found) and made.num_gpus_per_env_runner == 0.5
    assert (made.num_learners, made.sharded) == (2, True)


def test_a_runner_has_all_gpus_that_its_engine_is_spread_over(monkeypatch: pytest.MonkeyPatch) -> None:
    made = algorithm_config(TrainConfig.model_validate({"model": SPREAD, "rollout": {"num_env_runners": 2}}))
    made.validate()
    assert (made.tensor_parallel_size, made.num_gpus_per_env_runner, made.num_env_runners) == (4, 4, 2)
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(env_runner, "VLLMEngine", lambda path, **settings: asked.append(settings))
    runner: Any = SimpleNamespace(config=made)
    env_runner.TextEnvRunner._make_engine(runner)
    monkeypatch.setattr(vllm, "VLLMEngine", lambda path, **settings: asked.append(settings))
    make_engine(EvalConfig.model_validate({"model": SPREAD}).model)  # whose process takes the GPUs that it sees
    assert [(each["tensor_parallel_size"], each["kv_cache_gb"]) for each in asked] == [(4, 30.0), (4, 30.0)]


@pytest.mark.parametrize(
    ("rollout", "said"),
    [
        ({}, r"write --rollout\.num-env-runners 1, or more"),
        ({"num_env_runners": 1, "num_gpus_per_env_runner": 1}, r"write --rollout\.num-gpus-per-env-runner 4, or leave"),
    ],
)
def test_an_engine_without_its_gpus_is_refused(rollout: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TrainConfig.model_validate({"model": SPREAD, "rollout": rollout})
    assert TrainConfig.model_validate({"model": {**SPREAD, "engine": "transformers"}}).gpus_per_env_runner == 0
    made = algorithm_config(TrainConfig.model_validate({"model": SPREAD, "rollout": {"num_env_runners": 1}}))
    with pytest.raises(ConfigError, match=r"env_runners\(num_env_runners=1, num_gpus_per_env_runner=4\)"):
        made.env_runners(num_gpus_per_env_runner=1).validate()

"""From a recipe to RLlib's configuration: who has which GPU."""

from __future__ import annotations

import pytest
import torch
from search_agents.config import SFTConfig, TrainConfig
from search_agents.learning.build import algorithm_config, supervised_config


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

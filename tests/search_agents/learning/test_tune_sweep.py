"""A sweep with Ray Tune."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ray import tune
from search_agents.learning import ReinforcePP

pytestmark = pytest.mark.usefixtures("ray_cluster")


def test_tune_sweeps_over_the_learning_rate(make_config: Callable[..., Any], tmp_path: Path) -> None:
    config = make_config(
        lr=tune.grid_search([1e-3, 0.0]), stages=[{"name": "only", "reward": "stage1", "max_steps": 2}]
    )
    tuner = tune.Tuner(
        ReinforcePP,
        param_space=config,
        run_config=tune.RunConfig(
            storage_path=str(tmp_path),
            name="sweep",
            verbose=0,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=True),
        ),
        tune_config=tune.TuneConfig(metric="env_runners/episode_return_mean", mode="max"),
    )
    results = tuner.fit()
    assert len(results) == 2 and not results.errors
    by_lr = {result.config["lr"]: result for result in results}
    assert all(result.metrics["training_iteration"] == 2 for result in results), "the schedule ends the trials"
    assert by_lr[0.0].metrics["learners"]["default_policy"]["kl"] < 1e-6
    assert by_lr[1e-3].metrics["learners"]["default_policy"]["kl"] > 1e-6
    best = results.get_best_result()
    restored = ReinforcePP.from_checkpoint(best.checkpoint.to_directory())
    assert restored.steps_done == 2 and restored.config.lr == best.config["lr"]
    restored.stop()

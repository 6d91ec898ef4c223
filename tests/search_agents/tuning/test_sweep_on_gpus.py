"""Sweeps whose trials have runners and learners of their own on GPUs: what they reserve, and that they come to run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")
pytest.importorskip("torch")

import ray
import torch
from ray import tune
from search_agents.config import TrainConfig
from search_agents.config.tuning import SweepConfig, base_recipe
from search_agents.learning import ReinforcePP
from search_agents.learning.build import algorithm_config
from search_agents.tuning import sweep as sweeps
from search_agents.tuning.sweep import run_sweep

from search_env.errors import ConfigError

RAY_CPUS, RAY_GPUS = 3, 2
TINY = {
    "learner.prompts_per_batch": 1,
    "learner.group_size": 2,
    "learner.minibatch_size": 2,
    "learner.num_learners": 1,
    "learner.num_gpus_per_learner": 1,
    "rollout.num_env_runners": 1,
    "rollout.num_gpus_per_env_runner": 1,
    "rollout.max_segment_tokens": 8,
    "rollout.max_episode_tokens": 96,
    "evaluation.questions": 1,
    "evaluation.batch_size": 1,
    "stages.0.max_steps": 1,
    "stages.1.max_steps": 1,
}


def sweep_of(settings: dict[str, Any], **values: Any) -> SweepConfig:
    return SweepConfig.model_validate(
        {
            **{"settings": settings, "metric": "train/reward", "samples": 1, "scheduler": "fifo", "loggers": ["csv"]},
            **{"max_iterations": 1, "steps_per_iteration": 1, "space": {"learner.lr": {"choice": [1e-4]}}},
            **values,
        }
    )


def tell(line: str) -> None:
    """Is told of every iteration."""


def test_every_process_of_a_trial_has_a_bundle_with_its_gpus() -> None:
    spread = {"model.engine": "vllm", "model.vllm.tensor_parallel_size": 4, "rollout.num_gpus_per_env_runner": 0}
    sweep = sweep_of({**TINY, **spread, "rollout.num_env_runners": 2}, resources={"cpus": 3, "gpus": 0.5})
    assert sweeps._bundles(sweep, base_recipe(sweep)) == [
        {"CPU": 3.0, "GPU": 0.5},
        {"CPU": 1.0, "GPU": 4.0},
        {"CPU": 1.0, "GPU": 4.0},
        {"CPU": 1.0, "GPU": 1.0},
    ]
    recipe = base_recipe(sweep)
    asked = ReinforcePP.default_resource_request(algorithm_config(recipe)).bundles
    for ours, rllibs in zip(sweeps._bundles(sweep, recipe)[1:], asked[1:], strict=True):
        assert ours["GPU"] == rllibs["GPU"] and ours["CPU"] >= rllibs.get("CPU", 0)
    plain = SweepConfig()
    assert sweeps._bundles(plain, TrainConfig()) == [{"CPU": 1.0}]


@pytest.mark.parametrize("found", [True, False])
def test_learners_that_leave_it_open_have_a_gpu_where_there_is_one(
    monkeypatch: pytest.MonkeyPatch, found: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: found)
    sweep = sweep_of({**TINY, "learner.num_gpus_per_learner": None, "rollout.num_gpus_per_env_runner": 0})
    decided = sweeps._with_gpus(base_recipe(sweep))
    assert decided.learner.num_gpus_per_learner == int(found)
    assert [bundle.get("GPU", 0) for bundle in sweeps._bundles(sweep, decided)] == [0, 0, int(found)]
    alone = sweep_of({**TINY, "learner.num_learners": 0, "learner.num_gpus_per_learner": None})
    assert sweeps._with_gpus(base_recipe(alone)).learner.num_gpus_per_learner is None, "the trial's process sees for it"


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize(
    ("settings", "own", "said"),
    [
        (TINY, 1.0, r"asks for 3 GPUs, but this machine has 2: 1 for itself .* Write --resources\.gpus 0, or"),
        ({**TINY, "learner.num_learners": 2}, 0.0, r"3 for 1 runners and 2 learners .* Write fewer of these"),
    ],
)
def test_a_trial_that_asks_for_more_gpus_than_there_are_is_refused(
    tmp_path: Path, settings: dict[str, Any], own: float, said: str
) -> None:
    sweep = sweep_of(settings, resources={"gpus": own})
    with pytest.raises(ConfigError, match=said):
        run_sweep(sweep, base_recipe(sweep), tmp_path / "sweep", tell=tell)


class Probe(tune.Trainable):  # type: ignore[misc]  # ray is untyped
    """A trial that starts what a training starts, as RLlib does, without a model: its GPUs are declared ones."""

    def setup(self, config: dict[str, Any], *, recipe: dict[str, Any], **unused: Any) -> None:
        made = algorithm_config(TrainConfig.model_validate(recipe))
        runner, learner = (
            ray.remote(num_cpus=cpus, num_gpus=gpus)(Process)
            for cpus, gpus in ((made.num_cpus_per_env_runner, made.num_gpus_per_env_runner), (0, 1))
        )
        runners = [runner.options(placement_group_bundle_index=1 + n).remote() for n in range(made.num_env_runners)]
        self.processes = runners + [learner.remote() for _ in range(made.num_learners)]

    def step(self) -> dict[str, Any]:
        given = [ray.get(process.gpus.remote(), timeout=60) for process in self.processes]
        return {"train": {"reward": float(sum(map(len, given)))}, "held_out": {}, "steps": 1, "done": True}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        (Path(checkpoint_dir) / "nothing").touch()


class Process:
    """A runner or a learner."""

    def gpus(self) -> list[int]:
        return list(ray.get_gpu_ids())


@pytest.mark.usefixtures("ray_cluster")
def test_runner_and_learner_of_a_trial_come_to_their_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeps, "SweepTrial", Probe)
    sweep = sweep_of(TINY)
    run_sweep(sweep, base_recipe(sweep), tmp_path / "sweep", tell=tell)
    (row,) = json.loads((tmp_path / "sweep" / "sweep.json").read_text())["trials"]
    assert (row["status"], row["last"]) == ("finished", 2.0)

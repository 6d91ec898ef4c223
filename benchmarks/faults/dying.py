"""The soak over env runners of Ray, which are killed at random as well.

The runners are those of a training; only what the model says is drawn at random, as in the
soak of one process. A runner is killed in the middle of a search, with all episodes that it
had in play. Whoever asked for them replaces it, and the new one plays them all again.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import ray
from search_agents.learning import ReinforcePPConfig
from search_agents.learning.deaths import sample_on_runners
from search_agents.learning.env_runner import TextEnvRunner
from search_agents.models import find_model
from search_agents.rollout import Episode, Task

from benchmarks.faults import soak
from benchmarks.faults.soak import Account, RandomEngine, faulty_env, play_all

__all__ = ["DEATH", "soak_runners"]

DEATH = 0.002
"""How often a search kills the process that it runs in."""
BATCH = 64
"""Episodes that a runner is asked for at once."""


def soak_runners(
    episodes: int,
    *,
    runners: int = 2,
    death: float = DEATH,
    batch: int = BATCH,
    seconds: float = float("inf"),
    seed: int = 0,
) -> dict[str, Any]:
    """Play episodes among faults on runners that are killed.

    Args:
        episodes: How many must become valid.
        runners: Processes that play.
        death: How often a search kills its process.
        batch: Episodes that a runner is asked for at once.
        seconds: After this time no further batch begins.
        seed: Of the episodes. The faults differ from process to process, or a new one would die as the old one did.

    Returns:
        The account's figures, and how many runners were killed and replaced.

    Raises:
        AssertionError: If an episode is lost, counted twice, or is not what it should be.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "faults")
        log.touch()
        ray.init(num_cpus=runners + 1, include_dashboard=False, log_to_driver=False, object_store_memory=200 << 20)
        try:
            account, replaced = _soak(episodes, runners, _runner(log, death, seed), batch, seconds, seed)
        finally:
            ray.shutdown()
        account.faults.update(log.read_text().split())
    killed = account.faults.pop("death", 0)
    return {**account.figures(), "runners": runners, "killed": killed, "replaced": replaced}


def _soak(episodes: int, runners: int, runner: type, batch: int, seconds: float, seed: int) -> tuple[Account, int]:
    algo = _config(runners, runner).build_algo()
    replaced = 0

    def play(tasks: Sequence[Task]) -> list[Episode]:
        nonlocal replaced
        bounds = np.linspace(0, len(tasks), runners + 1).astype(int).tolist()
        requests = [{"tasks": tasks[start:stop]} for start, stop in pairwise(bounds)]
        parts, dead = sample_on_runners(algo.env_runner_group, requests)
        replaced += dead
        return [episode for part in parts for episode in part]

    try:
        account = Account(episodes)
        questions = algo.env_runner_group.foreach_env_runner(lambda each: len(each.env.dataset.questions))[0]
        play_all(account, questions, play, batch=runners * batch, seconds=seconds, seed=seed)
    finally:
        algo.stop()
    return account, replaced


def _config(runners: int, runner: type) -> ReinforcePPConfig:
    config: ReinforcePPConfig = (
        ReinforcePPConfig()
        .environment("SearchQA-FictionalWiki-v0", env_config={"prompt": "bare"})
        .env_runners(num_env_runners=runners, num_envs_per_env_runner=soak.SLOTS, env_runner_cls=runner)
        .training(
            model=find_model("tiny"),
            max_segment_tokens=soak.MAX_SEGMENT_TOKENS,
            max_episode_tokens=soak.MAX_TOKENS,
            torch_threads=1,
        )
    )
    return config


def _runner(log: Path, death: float, seed: int) -> type:
    """The runners' class; local, so that Ray sends the class itself to the other processes."""

    class SoakedRunner(TextEnvRunner):
        def make_env(self) -> None:
            def note(fault: str) -> None:
                with log.open("a") as file:  # a line is written at once, and is there when the process is killed
                    file.write(f"{fault}\n")

            rates = {**soak.RATES, "death": death}
            self.env = faulty_env(f"{seed}/{os.getpid()}", rates=rates, note=note)
            self._split = self.env.dataset.split

        def _make_engine(self) -> Any:
            return RandomEngine(self.env.dataset)

    return SoakedRunner

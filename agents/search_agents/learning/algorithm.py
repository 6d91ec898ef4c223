"""ReinforcePP: Reinforce++ for search agents as an RLlib algorithm.

One training step samples a group of episodes for each of some questions, computes
advantages over the whole batch, takes the optimizer steps through RLlib's
`LearnerGroup`, and lets the schedule see how the episodes went. GRPO, Dr. GRPO, RLOO,
GSPO and CISPO are settings of it (see `ReinforcePPConfig.training`). Everything that is
random follows from the seed and the number of the step, so a run that is restored from
a checkpoint does what it would have done without the stop.

With neither remote runners nor remote learners, runner and learner share one module in
one process, nothing is copied and Ray is not started. With remote runners the next batch
may be sampled while the learner trains; see `search_agents.learning.pipelining`.

Example::

    config = (
        ReinforcePPConfig()
        .environment("SearchQA-FictionalWiki-v0", env_config={"prompt": "bare"})
        .training(model="tiny", lr=1e-5, prompts_per_batch=32, group_size=4)
    )
    algo = config.build_algo()
    result = algo.train()
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import Future, wait
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import COMPONENT_LEARNER, COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    LEARNER_RESULTS,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    TIMERS,
)

from search_agents.learning.aggregation import Aggregation
from search_agents.learning.algorithm_config import ReinforcePPConfig
from search_agents.learning.deaths import sample_on_runners
from search_agents.learning.env_runner import LocalEnvRunnerGroup, TextEnvRunner
from search_agents.learning.episode_metrics import episode_metrics, groups_with_signal, reward_part_means
from search_agents.learning.pipelining import BatchRequest, in_background
from search_agents.learning.preparation import prepare_rows
from search_agents.learning.prompts import tasks_of_step
from search_agents.learning.rl_module import PackedTensor
from search_agents.learning.schedule import Schedule
from search_agents.learning.shared_folder import check_shared, holds_weights
from search_agents.rollout import Episode, Task
from search_env.errors import RetrieverUnavailable

__all__ = ["ReinforcePP", "ReinforcePPConfig"]

_PROGRESS = "search_agents"  # keys of our own parts of the algorithm's state
_SAMPLER = "search_agents_sampler"


class ReinforcePP(Algorithm):  # type: ignore[misc]  # ray is untyped
    """Trains a search agent; see the module's docstring."""

    @classmethod
    def get_default_config(cls) -> ReinforcePPConfig:
        """A configuration without a model."""
        return ReinforcePPConfig()

    def setup(self, config: ReinforcePPConfig) -> None:
        """Build learners and, where it samples, runners."""
        self._schedule = Schedule(self.config.stages)
        self._replaced = 0  # env runners, since the last step was logged
        self._steps_done, self._env_steps = 0, 0
        self._episodes: list[Episode] = []
        self._asked: BatchRequest | None = None
        self._in_flight: Future[list[Episode]] | None = None
        super().setup(config)
        self._setup_runners()

    def _setup_runners(self) -> None:
        if self.config.shares_module:
            module = self.learner_group._learner.module[DEFAULT_MODULE_ID]
            self.env_runner_group = LocalEnvRunnerGroup(self.config, module)
        # All stages' questions are read before the first step: a split that is missing is no surprise of hour three.
        splits = {stage.split for stage in self._schedule.stages}
        counts = self.env_runner_group.foreach_env_runner(partial(_count_questions, splits=splits))
        self._num_questions: dict[str | None, int] = counts[0]

    def _setup_logdir(self) -> None:
        if self._storage:
            super()._setup_logdir()
        # Else nothing is logged to files, and RLlib's folder under ~/ray_results would stay empty.

    @property
    def steps_done(self) -> int:
        """Number of training steps so far."""
        return self._steps_done

    @property
    def stage(self) -> str:
        """Name of the stage that the next step belongs to."""
        return self._schedule.stage.name

    @property
    def finished(self) -> bool:
        """Whether the last stage is over."""
        return self._schedule.done

    @property
    def episodes(self) -> list[Episode]:
        """The episodes of the last step, group by group."""
        return self._episodes

    def step(self) -> dict[str, Any]:
        """One iteration of RLlib, which is one training step here; adds the stage to its result."""
        stage = self.stage
        result = super().step()
        return {**result, "stage": stage, "done": self.finished}

    def training_step(self) -> None:
        """Sample, let the schedule see the episodes, compute advantages and update.

        The timer of ``sample`` is the time that the learner waits for episodes: where a batch is sampled ahead, what
        was not done while it learned.

        Raises:
            RetrieverUnavailable: If too many episodes are invalid.
            ProcessDied: If remote runners die again and again.
        """
        with self.metrics.log_time((TIMERS, "sync"), reduce="mean", window=1):
            weights = self._weights()
        with self.metrics.log_time((TIMERS, "sample"), reduce="mean", window=1):
            request = self._asked or self._request(weights, ahead=0)
            self._episodes = self._collect(request)
        valid = self._valid_episodes()
        self._count_env_steps(sum(len(episode.transcript.turns) for episode in self._episodes))
        # Before the update, since it says what the batch that is sampled meanwhile is asked.
        self._schedule.observe(self._log_episodes())
        if self.config.max_staleness:
            self._log_learning("staleness", request.staleness)
            self._ask_ahead(weights)
        with self.metrics.log_time((TIMERS, "learn"), reduce="mean", window=1):
            self._learn(valid)
        self._steps_done += 1

    def _request(self, weights: Any, *, ahead: int) -> BatchRequest:
        return BatchRequest(
            step=self._steps_done + ahead,
            stage=self._schedule.stage,
            weights=weights,
            weights_step=self._steps_done,
        )

    def _ask_ahead(self, weights: Any) -> None:
        """Have the next step's batch sampled from now on, if there is a next step."""
        self._asked = None if self._schedule.done else self._request(weights, ahead=1)
        if self._asked is not None:
            self._in_flight = in_background(partial(self._sample_batch, self._asked))

    def _collect(self, request: BatchRequest) -> list[Episode]:
        """The episodes of a request, be they on their way, or still to be played."""
        in_flight, self._in_flight = self._in_flight, None
        return self._sample_batch(request) if in_flight is None else in_flight.result()

    def _forget_asked(self) -> None:
        """Wait until nothing is in flight, for runners answer one after another, and drop it."""
        if self._in_flight is not None:
            wait([self._in_flight])
        self._asked = self._in_flight = None

    def _tasks(self, request: BatchRequest, number: int, *, attempt: int) -> list[Task]:
        return tasks_of_step(
            request.step,
            num_questions=self._num_questions[request.stage.split],
            prompts_per_batch=number,
            group_size=self.config.group_size,
            seed=self._seed,
            attempt=attempt,
        )

    def _weights(self) -> Any:
        """What the runners shall sample with, or None if they share the learner's module."""
        if self.config.shares_module:
            return None
        state = self.learner_group.get_state(
            components=f"{COMPONENT_LEARNER}/{COMPONENT_RL_MODULE}", inference_only=True
        )[COMPONENT_LEARNER]
        weights = {COMPONENT_RL_MODULE: state[COMPONENT_RL_MODULE]}
        return weights if self.env_runner is not None else ray.put(weights)

    def _sample_batch(self, request: BatchRequest) -> list[Episode]:
        """Play a step's episodes; with dynamic sampling, others in the place of groups without signal (DAPO)."""
        wanted = self.config.prompts_per_batch
        episodes = self._sample(self._tasks(request, wanted, attempt=0), request)
        for attempt in range(1, self.config.dynamic_sampling + 1):
            missing = wanted - len(groups_with_signal(episodes))
            if missing > 0:
                episodes += self._sample(self._tasks(request, missing, attempt=attempt), request)
        return episodes

    def _sample(self, tasks: list[Task], request: BatchRequest) -> list[Episode]:
        """Play one episode for each task, each group on one runner; a remote runner that dies is replaced."""
        stage, most = request.stage, self._schedule.max_steps
        progress = None if most is None else (request.step, most)
        asked = {"reward": stage.reward, "split": stage.split, "progress": progress, "weights": request.weights}
        if self.env_runner is not None:
            return self.env_runner.sample(tasks=tasks, **asked)  # type: ignore[no-any-return]
        runners = self.env_runner_group.num_remote_env_runners()
        groups = len(tasks) // self.config.group_size
        bounds = np.linspace(0, groups, runners + 1).astype(int) * self.config.group_size
        requests = [{"tasks": tasks[start:stop], **asked} for start, stop in pairwise(bounds.tolist())]
        parts, replaced = sample_on_runners(self.env_runner_group, requests)
        self._replaced += replaced
        return [episode for part in parts for episode in part]

    def _valid_episodes(self) -> list[Episode]:
        valid = [episode for episode in self._episodes if episode.valid]
        invalid = len(self._episodes) - len(valid)
        if not valid or invalid > self.config.max_invalid_rate * len(self._episodes):
            raise RetrieverUnavailable(
                f"the retriever failed in {invalid} of the {len(self._episodes)} episodes of step "
                f"{self._steps_done + 1}, more than max_invalid_rate = {self.config.max_invalid_rate} allows. "
                "Bring it back and resume from the last checkpoint."
            )
        return valid

    def _learn(self, episodes: Sequence[Episode]) -> None:
        """Compute advantages over the whole batch and take the optimizer steps."""
        if self.config.dynamic_sampling:
            informative = groups_with_signal(episodes)
            episodes = [episode for episode in episodes if episode.group in informative]
        rows = prepare_rows(episodes, self.config, self.learner_group, self._log_learning)
        if not rows:
            self._log_learning("skipped_steps", 1.0)
            return
        results = self.learner_group.update_on(
            rows,
            minibatch_size=self.config.minibatch_size,
            order=np.random.default_rng([self._seed, self._steps_done, 1]).permutation(len(rows)),
            aggregation=Aggregation(self.config.aggregation),
            max_tokens=self.config.max_episode_tokens,
            num_epochs=self.config.num_epochs,
            timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: self._env_steps},
        )
        self.metrics.aggregate(results, key=LEARNER_RESULTS)

    def _log_learning(self, name: str, value: float) -> None:
        self.metrics.log_value((LEARNER_RESULTS, DEFAULT_MODULE_ID, name), value, window=1)

    def _count_env_steps(self, number: int) -> None:
        self._env_steps += number
        self.metrics.log_value((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME), number, reduce="lifetime_sum")

    def _log_episodes(self) -> dict[str, float]:
        """Log how the episodes went; returns their metrics."""
        metrics = episode_metrics(self._episodes)
        self.metrics.log_dict(metrics, key=ENV_RUNNER_RESULTS, window=1)
        if self.env_runner is None:
            self.metrics.log_value((ENV_RUNNER_RESULTS, "replaced_runners"), self._replaced, window=1)
            self._replaced = 0
        # The parts of the previous stage's reward are no longer measured.
        self.metrics.delete(ENV_RUNNER_RESULTS, "reward_parts", key_error=False)
        parts = reward_part_means(self._episodes)
        self.metrics.log_dict(parts, key=(ENV_RUNNER_RESULTS, "reward_parts"), window=1)
        return metrics

    @property
    def _seed(self) -> int:
        return self.config.seed or 0

    def get_progress(self) -> dict[str, Any]:
        """Where the run stands: steps done and the schedule's state, plain values only."""
        return {"steps_done": self._steps_done, "env_steps": self._env_steps, "schedule": self._schedule.get_state()}

    def set_progress(self, progress: Mapping[str, Any]) -> None:
        """Go on where `get_progress` says.

        Raises:
            ConfigError: If the schedule has no such stage.
        """
        self._forget_asked()
        self._schedule.set_state(progress["schedule"])
        self._steps_done, self._env_steps = progress["steps_done"], 0
        self.metrics.delete(ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME, key_error=False)
        self._count_env_steps(progress["env_steps"])

    def get_sampler(self) -> dict[str, PackedTensor] | None:
        """The weights that the next step's batch is sampled with, by name; None if they are the learner's."""
        if self._asked is None:
            return None
        weights: dict[str, PackedTensor] = ray.get(self._asked.weights)[COMPONENT_RL_MODULE][DEFAULT_MODULE_ID]
        return weights

    def set_sampler(self, weights: Mapping[str, PackedTensor]) -> None:
        """Sample the next step's batch with such weights, those from before the last step; after `set_progress`."""
        if self.config.max_staleness:
            asked = ray.put({COMPONENT_RL_MODULE: {DEFAULT_MODULE_ID: dict(weights)}})
            self._asked = replace(self._request(asked, ahead=0), weights_step=self._steps_done - 1)

    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """RLlib's state, the progress and, of a batch that is sampled ahead, the weights."""
        state = {**super().get_state(*args, **kwargs), _PROGRESS: self.get_progress()}
        sampler = self.get_sampler()
        return state if sampler is None else {**state, _SAMPLER: sampler}

    def set_state(self, state: dict[str, Any]) -> None:
        """Take over a state."""
        self._forget_asked()
        super().set_state(state)
        if _PROGRESS in state:
            self.set_progress(state[_PROGRESS])
        if _SAMPLER in state:
            self.set_sampler(state[_SAMPLER])

    def cleanup(self) -> None:
        """Stop all processes, once the batch in flight has landed."""
        self._forget_asked()
        super().cleanup()

    @property
    def tokenizer(self) -> Any:
        """The tokenizer of the model that is trained."""
        return self.learner_group.on_first_learner(
            lambda learner: learner.module[DEFAULT_MODULE_ID].unwrapped().tokenizer
        )

    def save_model(self, folder: str | Path) -> None:
        """Write model and tokenizer as Transformers reads them, weights as safetensors.

        Raises:
            RunError: If the first learner has written them on a disk of another machine.
        """
        folder = Path(folder).resolve()
        self.learner_group.on_first_learner(lambda learner: learner.save_pretrained(str(folder)))
        check_shared(folder, found=holds_weights(folder), who="the driver")


def _count_questions(runner: TextEnvRunner, splits: Collection[str | None]) -> dict[str | None, int]:
    return {split: runner.num_questions(split) for split in splits}

"""Supervised: imitation of stored episodes, by the learner of Reinforce++.

A training step is one optimizer step on one minibatch of stored episodes, with the
negative log-likelihood of the sampled tokens in the place of the policy loss. Prompt and
documents are read and never imitated: no log-prob is computed for their tokens.
Minibatches, micro-batches, clipping, learners and checkpoints are those of Reinforce++.

Which episodes a step learns from follows from the seed and the number of the step.

Example::

    config = SupervisedConfig().training(model="tiny", lr=1e-4, minibatch_size=32, epochs=3)
    algo = config.build_algo()
    algo.imitate(episodes)
    result = algo.train()
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import NotProvided
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.utils.metrics import LEARNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME, TIMERS

from search_agents.learning.algorithm import ReinforcePP
from search_agents.learning.algorithm_config import ReinforcePPConfig
from search_agents.learning.learner import NUM_TOKENS, ReinforcePPTorchLearner
from search_agents.learning.learner_group import Row, cut_evenly
from search_agents.learning.losses import negative_log_likelihood
from search_agents.learning.prompts import order_of_epoch
from search_agents.learning.rl_module import ENTROPIES, LOGPROBS
from search_agents.rollout import Episode
from search_env.errors import ConfigError, RunError

__all__ = ["Supervised", "SupervisedConfig", "SupervisedTorchLearner"]


class SupervisedTorchLearner(ReinforcePPTorchLearner):
    """Trains an `LLMModule` by the negative log-likelihood of the sampled tokens."""

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: Mapping[str, torch.Tensor], fwd_out: Mapping[str, torch.Tensor]
    ) -> torch.Tensor:
        """The loss that one micro-batch contributes to its minibatch; see the base class."""
        num_tokens = batch[NUM_TOKENS][0]
        loss = negative_log_likelihood(fwd_out[LOGPROBS], num_tokens=num_tokens)
        self._log_parts(module_id, {"loss": loss, "entropy": fwd_out[ENTROPIES].sum() / num_tokens})
        return loss


class SupervisedConfig(ReinforcePPConfig):
    """Configuration of `Supervised`: that of `ReinforcePP`, but sampling and advantages have no effect."""

    def __init__(self, algo_class: type[Algorithm] | None = None) -> None:
        super().__init__(algo_class=algo_class or Supervised)
        self.epochs = 3

    def training(self, *, epochs: int = NotProvided, **kwargs: Any) -> Self:
        """Set how to train.

        Args:
            epochs: Passes over the episodes.
            **kwargs: See `ReinforcePPConfig.training`.

        Returns:
            This configuration.
        """
        super().training(**kwargs)
        if epochs is not NotProvided:
            self.epochs = epochs
        return self

    def validate(self) -> None:
        """Check every setting.

        Raises:
            ConfigError: If one is wrong.
        """
        super().validate()
        if not isinstance(self.epochs, int) or self.epochs < 1:
            raise ConfigError(f"epochs is {self.epochs!r}; give a whole number of at least 1.")
        if self.temperature != 1.0:
            raise ConfigError(f"temperature is {self.temperature!r}, but what is imitated has none; leave it at 1.0.")

    @property
    def is_online(self) -> bool:
        """False: nothing is sampled, so RLlib makes no runners."""
        return False

    def get_default_learner_class(self) -> type[SupervisedTorchLearner]:
        """The learner."""
        return SupervisedTorchLearner


class Supervised(ReinforcePP):
    """Imitates episodes; see the module's docstring."""

    _rows: Sequence[Row] = ()
    _fingerprint = ""

    @classmethod
    def get_default_config(cls) -> SupervisedConfig:
        """A configuration without a model."""
        return SupervisedConfig()

    def imitate(self, episodes: Sequence[Episode]) -> None:
        """Set what is trained on; comes before the first step, and before a checkpoint is loaded.

        Args:
            episodes: In the tokens of the model that is trained, at least one.

        Raises:
            ConfigError: If there is none, or one has no sampled token.
        """
        if not episodes:
            raise ConfigError("there is no episode to imitate; give at least one.")
        for episode in episodes:
            if not episode.action_mask.any():
                raise ConfigError(f"an episode of question {episode.question_id!r} has no token to imitate.")
        self._rows = [
            Row(input_ids=episode.token_ids, action_mask=episode.action_mask, logprobs=episode.logprobs)
            for episode in episodes
        ]
        digest = hashlib.sha256()
        for row in self._rows:
            digest.update(row.input_ids.tobytes() + row.action_mask.tobytes())
        self._fingerprint = digest.hexdigest()[:16]

    @property
    def max_steps(self) -> int:
        """Training steps of all epochs together."""
        return int(self.config.epochs) * self._steps_of_epoch

    @property
    def stage(self) -> str:
        """The epoch that the next step belongs to."""
        return f"epoch{self._steps_done // self._steps_of_epoch + 1}"

    @property
    def finished(self) -> bool:
        """Whether the last epoch is over."""
        return self._steps_done >= self.max_steps

    @property
    def _steps_of_epoch(self) -> int:
        if not self._rows:
            raise ConfigError("there is nothing to imitate yet; call imitate(episodes) before train().")
        return -(-len(self._rows) // int(self.config.minibatch_size))

    def training_step(self) -> None:
        """Take one optimizer step on one minibatch."""
        rows = self._minibatch()
        with self.metrics.log_time((TIMERS, "learn"), reduce="mean", window=1):
            results = self.learner_group.update_on(
                rows,
                minibatch_size=len(rows),
                order=np.arange(len(rows)),
                timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: 0},
            )
        self.metrics.aggregate(results, key=LEARNER_RESULTS)
        trained = float(sum(row.action_mask.sum() for row in rows))
        self.metrics.log_value((LEARNER_RESULTS, DEFAULT_MODULE_ID, "trained_tokens"), trained, window=1)
        self._steps_done += 1

    def _minibatch(self) -> list[Row]:
        """The rows of the next step; each comes once an epoch, in minibatches of nearly the same size."""
        epoch, place = divmod(self._steps_done, self._steps_of_epoch)
        order = order_of_epoch(epoch, number=len(self._rows), seed=self._seed)
        part = cut_evenly(len(self._rows), int(self.config.minibatch_size))[place]
        return [self._rows[index] for index in order[part]]

    def _setup_runners(self) -> None:
        """Make none: nothing is sampled."""

    def get_progress(self) -> dict[str, Any]:
        """Where the run stands: steps done, and what they were trained on."""
        return {"steps_done": self._steps_done, "env_steps": 0, "episodes": self._fingerprint}

    def set_progress(self, progress: Mapping[str, Any]) -> None:
        """Go on where `get_progress` says.

        Raises:
            RunError: If the episodes are not those that the run was started with.
        """
        if progress["episodes"] != self._fingerprint:
            raise RunError(
                "the episodes to imitate are not those that the run was started with, so it cannot go on. "
                "Bring the trajectories and the model's tokenizer back as they were, or start a new run."
            )
        self._steps_done = progress["steps_done"]

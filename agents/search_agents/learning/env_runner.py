"""Samples episodes for the learner, in the driver's process or as a Ray actor.

A runner keeps nothing between calls that matters: what to play, under which reward and
with which weights comes with each request. A runner that is restarted, or an algorithm
that is restored from an older checkpoint, therefore samples exactly what it would have
sampled anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import gymnasium as gym
import ray
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.env import INPUT_ENV_SINGLE_SPACES, INPUT_ENV_SPACES
from ray.rllib.env.env_runner import EnvRunner
from ray.rllib.env.env_runner_group import EnvRunnerGroup
from ray.rllib.utils.actor_manager import FaultTolerantActorManager
from ray.rllib.utils.checkpoints import Checkpointable
from ray.rllib.utils.framework import get_device

import search_env  # noqa: F401  # registers the environments, in every process that has a runner
from search_agents.engines.base import SamplingParams
from search_agents.engines.transformers import TransformersEngine
from search_agents.engines.vllm import VLLMEngine
from search_agents.learning.rl_module import LLMModule
from search_agents.learning.schedule import RewardSpec
from search_agents.learning.torch_settings import use_torch
from search_agents.rollout import Episode, Task, play

__all__ = ["LocalEnvRunnerGroup", "TextEnvRunner"]


class TextEnvRunner(EnvRunner, Checkpointable):  # type: ignore[misc]  # ray is untyped
    """Plays episodes of the vector environment with the engine on the module's weights.

    Args:
        config: The algorithm's configuration.
        module: The learner's own module, to sample with it as it is; None builds one.
        **kwargs: What RLlib passes to every runner.
    """

    def __init__(self, *, config: Any, module: LLMModule | None = None, **kwargs: Any) -> None:
        super().__init__(config=config, **kwargs)
        self._shares_module = module is not None
        use_torch(self.config.torch_threads)
        self.make_env()
        self.module: Any = module
        self.make_module()

    def make_env(self) -> None:
        """Make the vector environment that the configuration names."""
        self.env = gym.make_vec(
            self.config.env,
            num_envs=self.config.num_envs_per_env_runner,
            vectorization_mode="vector_entry_point",
            **self.config.env_config,
        ).unwrapped
        self._split: str = self.env.dataset.split

    def make_module(self) -> None:
        """Build the module, unless it is shared, and the engine on it."""
        if self.module is None:
            spec = self.config.get_multi_rl_module_spec(spaces=self.get_spaces(), inference_only=True)
            self.module = spec.build()[DEFAULT_MODULE_ID]
            if self.config.engine == "transformers":  # vLLM has a copy of its own there
                self.module.to(get_device(self.config, self.config.num_gpus_per_env_runner))
        self.engine = self._make_engine()

    def _make_engine(self) -> TransformersEngine | VLLMEngine:
        """What samples, on the module's own weights or, with vLLM, on a copy that `sample` renews."""
        if self.config.engine == "transformers":
            return TransformersEngine(
                self.module.model,
                self.module.tokenizer,
                autocast=self.config.autocast,
                continuous=self.config.continuous,
            )
        return VLLMEngine(
            self.config.model_path,
            dtype=self.config.engine_dtype or self.config.dtype,
            max_context=self.config.max_episode_tokens,
            kv_cache_gb=self.config.kv_cache_gb,
            tensor_parallel_size=self.config.tensor_parallel_size,
        )

    def get_spaces(self) -> dict[str, tuple[gym.Space[Any], gym.Space[Any]]]:
        """Observation and action space, of the batch and of one episode."""
        single = (self.env.single_observation_space, self.env.single_action_space)
        batched = (self.env.observation_space, self.env.action_space)
        return {INPUT_ENV_SPACES: batched, INPUT_ENV_SINGLE_SPACES: single, DEFAULT_MODULE_ID: single}

    def num_questions(self, split: str | None = None) -> int:
        """Number of questions in a split; None stands for the environment's own.

        Raises:
            ConfigError: If there is no such split, or its corpus is another one.
            DatasetError: If its data is malformed.
        """
        self.env.set_split(split or self._split)
        return len(self.env.dataset.questions)

    def sample(
        self,
        *,
        tasks: Sequence[Task],
        reward: RewardSpec | None = None,
        split: str | None = None,
        progress: tuple[int, int] | None = None,
        weights: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> list[Episode]:
        """Play one episode for each task.

        Args:
            tasks: What to play.
            reward: Judges the episodes; None keeps the environment's own.
            split: Split whose questions the tasks mean; None stands for the environment's own.
            progress: Steps that are done, and those of the whole training, for a retriever with a curriculum of its
                own (a method `at_step`); None leaves it as it is.
            weights: State for `set_state`, to sample with; None keeps the present ones.
            **kwargs: Ignored; RLlib's own calls may bring more.

        Returns:
            The episodes, in the order of the tasks.
        """
        if weights is not None:
            self.set_state(weights)
        if isinstance(self.engine, VLLMEngine):
            self.engine.update_weights(self.module.plain_weights())
        if reward is not None:
            self.env.set_reward(reward)
        self.env.set_split(split or self._split)
        if progress is not None and hasattr(self.env.retriever, "at_step"):
            self.env.retriever.at_step(*progress)
        sampling = SamplingParams(temperature=self.config.temperature, max_tokens=self.config.max_segment_tokens)
        return play(
            self.engine,
            self.env,
            tasks,
            sampling=sampling,
            max_tokens=self.config.max_episode_tokens,
            chat=self.config.chat,
        )

    def get_metrics(self) -> dict[str, Any]:
        """Nothing: the algorithm has the episodes and measures them itself."""
        return {}

    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """The weights, if they are asked for."""
        if not self._check_component(COMPONENT_RL_MODULE, components, not_components):
            return {}
        return {COMPONENT_RL_MODULE: {DEFAULT_MODULE_ID: self.module.get_state()}}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Take over weights, be they older or newer; a shared module has them already."""
        modules = state.get(COMPONENT_RL_MODULE)
        if modules is None or self._shares_module:
            return
        if isinstance(modules, ray.ObjectRef):
            modules = ray.get(modules)
        self.module.set_state(modules[DEFAULT_MODULE_ID])

    def apply(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a function with this runner; its error reaches the caller (RLlib's would end the process instead)."""
        return func(self, *args, **kwargs)

    def get_ctor_args_and_kwargs(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The configuration."""
        return (), {"config": self.config}

    def assert_healthy(self) -> None:
        """Check that the runner is complete."""
        assert self.env is not None and self.module is not None

    def stop(self) -> None:
        """Close the environment."""
        self.env.close()


class LocalEnvRunnerGroup(EnvRunnerGroup):  # type: ignore[misc]  # ray is untyped
    """A single runner in the driver's process, on the learner's own module.

    RLlib's group starts Ray even without a remote runner, which takes seconds and a dozen processes. Nothing here
    needs it.

    Args:
        config: The algorithm's configuration.
        module: The module that runner and learner share.
    """

    def __init__(self, config: Any, module: LLMModule) -> None:
        self._remote_config = self._local_config = config
        self._worker_manager = FaultTolerantActorManager()
        self._ignore_ray_errors_on_env_runners = False
        self._num_env_runners_dropped_lifetime = 0
        self._local_env_runner = TextEnvRunner(config=config, module=module, worker_index=0)

    def sync_weights(self, *args: Any, **kwargs: Any) -> None:
        """Do nothing: there is one set of weights."""

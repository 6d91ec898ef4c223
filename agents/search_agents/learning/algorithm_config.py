"""The configuration of ReinforcePP: RLlib's, with what Reinforce++ and language models add.

Where RLlib's default does harm to slow episodes or large models, ours differs, and the
line says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig, NotProvided
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.util.debug import log_once

from search_agents.learning.advantages import Advantage, KLEstimator
from search_agents.learning.aggregation import Aggregation
from search_agents.learning.env_runner import TextEnvRunner
from search_agents.learning.learner import ReinforcePPTorchLearner
from search_agents.learning.learner_group import EpisodeLearnerGroup
from search_agents.learning.losses import Objective
from search_agents.learning.mismatch import Mismatch
from search_agents.learning.rl_module import LLMModule
from search_agents.learning.schedule import Schedule
from search_agents.models import find_model
from search_env.errors import ConfigError, unknown_name
from search_env.spaces import UnicodeText

__all__ = ["ReinforcePPConfig"]

_TEXT = UnicodeText(1_000_000)
_CHOICES: dict[str, tuple[str, ...]] = {
    "engine": ("transformers", "vllm"),
    "advantage": tuple(Advantage),
    "objective": tuple(Objective),
    "aggregation": tuple(Aggregation),
    "kl_in": ("reward", "loss"),
    "kl_estimator": tuple(KLEstimator),
    "mismatch": tuple(Mismatch),
}

_DTYPES_OF_A_BASE = ("auto", "float32", "bfloat16")
_WHOLE = (
    *("prompts_per_batch", "group_size", "minibatch_size", "micro_batch_tokens", "max_segment_tokens"),
    "tensor_parallel_size",
)


class ReinforcePPConfig(AlgorithmConfig):  # type: ignore[misc]  # ray is untyped
    """Configuration of `ReinforcePP`; see `training` for what it adds to RLlib's."""

    def __init__(self, algo_class: type[Algorithm] | None = None) -> None:
        from search_agents.learning.algorithm import ReinforcePP  # which imports this module

        super().__init__(algo_class=algo_class or ReinforcePP)
        self.observation_space = self.action_space = _TEXT
        self.env_runner_cls = TextEnvRunner
        self.num_envs_per_env_runner = 128
        self.batch_mode = "complete_episodes"
        self.sample_timeout_s = None  # RLlib's minute would throw slow episodes away in silence
        self.create_local_env_runner = False  # beside remote runners it would only hold one more model
        self.restart_failed_env_runners = False  # hides errors that the user could mend; `sample_on_runners` does not
        self._dont_auto_sync_env_runner_states = True
        self.torch_ddp_kwargs = {"broadcast_buffers": False}
        self.log_sys_usage = False
        self.seed = 0

        self.lr = 1e-6
        self.grad_clip = 1.0
        self.minibatch_size = 32
        self.model_path: str | None = None
        self.dtype = "float32"
        self.autocast = True
        self.engine = "transformers"
        self.continuous: bool | None = None
        self.engine_dtype: str | None = None
        self.kv_cache_gb = 2.0
        self.tensor_parallel_size = 1
        self.packing = True
        self.gradient_checkpointing = False
        self.sharded = False
        self.lora: dict[str, Any] | None = None
        self.advantage = Advantage.REINFORCE_PP.value
        self.prompts_per_batch = 32
        self.group_size = 4
        self.micro_batch_tokens = 2048
        self.kl_coef = 0.0
        self.kl_in = "reward"
        self.kl_estimator = KLEstimator.K1.value
        self.objective = Objective.PPO.value
        self.clip = 0.2
        self.clip_high: float | None = None
        self.aggregation = Aggregation.TOKEN.value
        self.mismatch = Mismatch.IGNORED.value
        self.mismatch_cap = 2.0
        self.dynamic_sampling = 0
        self.mask_overlong = False
        self.mask_documents = True
        self.temperature = 1.0
        self.max_segment_tokens = 256
        self.max_episode_tokens = 2048
        self.chat = False
        self.stages: list[dict[str, Any]] | None = None
        self.max_staleness = 0
        self.max_invalid_rate = 0.5
        self.torch_threads: int | None = None

    def training(
        self,
        *,
        model: str | Path | Mapping[str, Any] = NotProvided,
        dtype: str = NotProvided,
        autocast: bool = NotProvided,
        engine: str = NotProvided,
        continuous: bool | None = NotProvided,
        engine_dtype: str | None = NotProvided,
        kv_cache_gb: float = NotProvided,
        tensor_parallel_size: int = NotProvided,
        packing: bool = NotProvided,
        gradient_checkpointing: bool = NotProvided,
        sharded: bool = NotProvided,
        lora: Mapping[str, Any] | None = NotProvided,
        advantage: str = NotProvided,
        prompts_per_batch: int = NotProvided,
        group_size: int = NotProvided,
        micro_batch_tokens: int = NotProvided,
        kl_coef: float = NotProvided,
        kl_in: str = NotProvided,
        kl_estimator: str = NotProvided,
        objective: str = NotProvided,
        clip: float = NotProvided,
        clip_high: float | None = NotProvided,
        aggregation: str = NotProvided,
        mismatch: str = NotProvided,
        mismatch_cap: float = NotProvided,
        dynamic_sampling: int = NotProvided,
        mask_overlong: bool = NotProvided,
        mask_documents: bool = NotProvided,
        temperature: float = NotProvided,
        max_segment_tokens: int = NotProvided,
        max_episode_tokens: int = NotProvided,
        chat: bool = NotProvided,
        stages: Sequence[Mapping[str, Any]] | None = NotProvided,
        max_staleness: int = NotProvided,
        max_invalid_rate: float = NotProvided,
        torch_threads: int | None = NotProvided,
        **kwargs: Any,
    ) -> Self:
        """Set how to train.

        Args:
            model: A causal language model: ``tiny``, a folder or a hub id. (A mapping is RLlib's own setting of that
                name, which it passes through here; it has no effect.)
            dtype: Number format of the weights: ``float32``, or with `lora`, whose adapters are in float32 always, also
                ``bfloat16`` or ``auto`` (as saved).
            autocast: Whether the learner computes in bfloat16 while weights keep their format. ``transformers`` then
                samples in it, too: bfloat16 rounds away steps that float32 sees, so a policy that is sampled in float32
                comes to be another one than is trained.
            engine: What samples: ``transformers``, on the module's own weights, or ``vllm``, on a copy that takes over
                the module's weights before it samples.
            continuous: Whether ``transformers`` plays each episode in its own time; see `TransformersEngine`.
            engine_dtype: Number format of vLLM's weights; None for `dtype`.
            kv_cache_gb: Memory of vLLM's key-value cache in GiB, on each GPU.
            tensor_parallel_size: GPUs that vLLM spreads one engine over; a runner must have as many
                (``num_gpus_per_env_runner``).
            packing: Whether rows are computed without padding, and on a CPU what all of a micro-batch begin with only
                once; without it rows of similar lengths are padded.
            gradient_checkpointing: Whether the learner keeps the inputs of layers only and computes the rest again:
                less memory, a third more time.
            sharded: Whether several learners share weights, gradients and moments (FSDP2) instead of each holding all.
            lora: Trains adapters of this ``rank`` and ``alpha`` instead of all weights; None trains all.
            advantage: ``reinforce++``, ``reinforce++-baseline``, ``grpo``, ``dr-grpo`` or ``rloo``; see
                `search_agents.learning.advantages`.
            prompts_per_batch: Questions in a step.
            group_size: Episodes for each question.
            micro_batch_tokens: The most tokens of one forward pass of a learner, padding included if there is any.
            kl_coef: Weight of the token-level KL to the initial model; 0 keeps no reference model.
            kl_in: Where that KL counts: in the ``reward``, or in the ``loss``.
            kl_estimator: ``k1``, ``k2`` or ``k3``; see `KLEstimator`.
            objective: ``ppo``, ``gspo`` or ``cispo``; see `search_agents.learning.losses`.
            clip: Range of the importance ratio below 1, and above it without `clip_high`.
            clip_high: Range of the ratio above 1; None for that of `clip`.
            aggregation: ``token``, ``sequence`` or ``constant``; see `search_agents.learning.aggregation`.
            mismatch: ``ignored``, ``truncated`` or ``masked``; see `search_agents.learning.mismatch`.
            mismatch_cap: Largest weight of a token there, above 1.
            dynamic_sampling: How many times other questions are asked in the place of groups whose episodes all
                earned the same, which are then not trained on; 0 trains on all groups.
            mask_overlong: Whether truncated episodes are left out of the loss.
            mask_documents: Whether the environment's tokens are left out of the loss. False is there for the ablation
                alone: they then count as if the policy had sampled them; see `search_agents.learning.preparation`.
            temperature: Of the sampling; the learner's log-probs are taken at the same temperature.
            max_segment_tokens: The most tokens of a segment.
            max_episode_tokens: The most tokens of an episode: prompt, segments and observations.
            chat: Whether prompts go through the model's chat template.
            stages: See `search_agents.learning.schedule.Stage.from_dict`; None keeps the environment's reward.
            max_staleness: 1 has the remote runners sample the next batch while the learner trains, with the weights
                from before that step; 0 samples every batch with the weights that are trained on it. See
                `search_agents.learning.pipelining`.
            max_invalid_rate: Share of invalid episodes in a step above which training stops with an error.
            torch_threads: Threads of torch in every process; None leaves them as they are.
            **kwargs: RLlib's own, among them ``lr``, ``grad_clip``, ``minibatch_size`` (the most episodes of one
                optimizer step, over all learners; a batch is cut into as few nearly equal parts as that allows) and
                ``num_epochs``.

        Returns:
            This configuration.
        """
        if isinstance(model, str | Path):
            self.model_path = find_model(str(model))
        elif model is not NotProvided:
            kwargs["model"] = model
        super().training(**kwargs)
        given = {
            "dtype": dtype,
            "autocast": autocast,
            "engine": engine,
            "continuous": continuous,
            "engine_dtype": engine_dtype,
            "kv_cache_gb": kv_cache_gb,
            "tensor_parallel_size": tensor_parallel_size,
            "packing": packing,
            "gradient_checkpointing": gradient_checkpointing,
            "sharded": sharded,
            "lora": lora,
            "advantage": advantage,
            "prompts_per_batch": prompts_per_batch,
            "group_size": group_size,
            "micro_batch_tokens": micro_batch_tokens,
            "kl_coef": kl_coef,
            "kl_in": kl_in,
            "kl_estimator": kl_estimator,
            "objective": objective,
            "clip": clip,
            "clip_high": clip_high,
            "aggregation": aggregation,
            "mismatch": mismatch,
            "mismatch_cap": mismatch_cap,
            "dynamic_sampling": dynamic_sampling,
            "mask_overlong": mask_overlong,
            "mask_documents": mask_documents,
            "temperature": temperature,
            "max_segment_tokens": max_segment_tokens,
            "max_episode_tokens": max_episode_tokens,
            "chat": chat,
            "stages": stages,
            "max_staleness": max_staleness,
            "max_invalid_rate": max_invalid_rate,
            "torch_threads": torch_threads,
        }
        for name, value in given.items():
            if value is not NotProvided:
                setattr(self, name, value)
        return self

    def validate(self) -> None:
        """Check every setting.

        Raises:
            ConfigError: If one is wrong.
        """
        log_once(f"{self.algo_class.__name__}_on_new_api_stack")  # or RLlib would advise against its own API
        super().validate()
        if self.model_path is None:
            raise ConfigError("no model to train; give one with .training(model='folder or hub id').")
        if self.evaluation_interval:
            raise ConfigError(
                "evaluation_interval is set, but RLlib's evaluation knows no questions and answers; "
                "leave it out and call search_agents.evaluation between the calls of train()."
            )
        for name, allowed in _CHOICES.items():
            if self[name] not in allowed:
                raise ConfigError(unknown_name(name, str(self[name]), allowed))
        if Advantage(self.advantage).needs_groups and self.group_size < 2:
            raise ConfigError(f"advantage {self.advantage!r} needs group_size >= 2: one episode has no baseline.")
        if not isinstance(self.dynamic_sampling, int) or self.dynamic_sampling < 0:
            raise ConfigError(f"dynamic_sampling is {self.dynamic_sampling!r}; give a whole number of at least 0.")
        if self.dynamic_sampling and self.group_size < 2:
            raise ConfigError("dynamic_sampling needs group_size >= 2: a group of one never has a signal.")
        if self.max_staleness not in (0, 1):
            raise ConfigError(
                f"max_staleness is {self.max_staleness!r}; give 0 (sample, then learn) or 1 (sample the next batch "
                "meanwhile)."
            )
        if self.kl_coef > 0 and self.kl_in == "loss" and self.kl_estimator == KLEstimator.K1:
            raise ConfigError("kl_in 'loss' needs kl_estimator 'k2' or 'k3': the gradient of k1 is 0 on average.")
        if self.sharded and (self.num_learners < 2 or self.lora):
            raise ConfigError(
                f"sharded needs num_learners >= 2 and no lora; num_learners is {self.num_learners} and lora "
                f"{self.lora}. Sharded learners train all weights, each a part of them."
            )
        if self.dtype not in (allowed := _DTYPES_OF_A_BASE if self.lora else ("float32",)):
            raise ConfigError(
                f"dtype is {self.dtype!r}; give {' or '.join(map(repr, allowed))}. What is trained is in float32, for "
                "other formats round most steps of AdamW away: compute in bfloat16 with autocast=True, or train "
                "adapters on weights in bfloat16 with lora={'rank': 32, 'alpha': 32.0}."
            )
        for name in _WHOLE:
            if not isinstance(self[name], int) or self[name] < 1:
                raise ConfigError(f"{name} is {self[name]!r}; give a whole number of at least 1.")
        if not self.in_evaluation:
            self._check_runners()
        ranges = {
            "kl_coef": (self.kl_coef >= 0, "a number of at least 0"),
            "clip": (0 < self.clip < 1, "a number between 0 and 1, for example 0.2"),
            "clip_high": (self.clip_high is None or self.clip_high > 0, "a positive number, for example 0.28, or None"),
            "mismatch_cap": (self.mismatch_cap > 1, "a number above 1, for example 2.0"),
            "temperature": (self.temperature > 0, "a positive number, for example 1.0"),
            "max_episode_tokens": (self.max_episode_tokens > self.max_segment_tokens, "more than max_segment_tokens"),
            "max_invalid_rate": (0 <= self.max_invalid_rate <= 1, "a share between 0 and 1"),
        }
        for name, (right, wanted) in ranges.items():
            if not right:
                raise ConfigError(f"{name} is {self[name]!r}; give {wanted}.")
        Schedule(self.stages)

    def _check_runners(self) -> None:
        """Check what needs runners; RLlib also validates a copy for its evaluation, which has none here."""
        if self.max_staleness and self.num_env_runners < 1:
            raise ConfigError(
                "max_staleness is 1, but num_env_runners is 0: without processes that sample, nothing is sampled "
                "while the learner trains. Add .env_runners(num_env_runners=1), or set max_staleness=0."
            )
        size, gpus = self.tensor_parallel_size, self.num_gpus_per_env_runner
        if self.engine == "vllm" and size > 1 and (self.num_env_runners < 1 or gpus != size):
            raise ConfigError(
                f"tensor_parallel_size is {size}, but num_env_runners is {self.num_env_runners} and "
                f"num_gpus_per_env_runner {gpus:g}. Add .env_runners(num_env_runners=1, "
                f"num_gpus_per_env_runner={size})."
            )

    @property
    def shares_module(self) -> bool:
        """Whether one process samples and learns with one module."""
        return bool(self.num_env_runners == 0 and self.num_learners == 0)

    @property
    def is_online(self) -> bool:
        """What RLlib reads to decide whether it makes an `EnvRunnerGroup`; sharing, we make our own."""
        return not self.shares_module

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        """The module: `LLMModule` on the configured model."""
        settings = {
            "model": self.model_path,
            "dtype": self.dtype,
            "autocast": self.autocast,
            "temperature": self.temperature,
            "reference": self.kl_coef > 0,
            "packing": self.packing,
            "gradient_checkpointing": self.gradient_checkpointing,
            "lora": self.lora,
            "seed": self.seed or 0,
        }
        return RLModuleSpec(module_class=LLMModule, model_config=settings)

    def get_default_learner_class(self) -> type[ReinforcePPTorchLearner]:
        """The learner."""
        return ReinforcePPTorchLearner

    def build_learner_group(
        self, *, env: Any = None, spaces: Any = None, rl_module_spec: Any = None, placement_group: Any = None
    ) -> EpisodeLearnerGroup:
        """Build the learners."""
        spec = rl_module_spec or self.get_multi_rl_module_spec(env=env, spaces=spaces)
        return EpisodeLearnerGroup(config=self.copy(), module_spec=spec, placement_group=placement_group)

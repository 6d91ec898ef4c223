"""From a training config to the algorithm, and from the algorithm to an engine on its present weights."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from ray.rllib.core import DEFAULT_MODULE_ID

from search_agents.config import SFTConfig, TrainConfig
from search_agents.config.sections import OptimizerSection
from search_agents.engines.pretrained import find_device
from search_agents.engines.transformers import TransformersEngine
from search_agents.evaluation.environments import check_env_section, env_arguments
from search_agents.learning.algorithm import ReinforcePP
from search_agents.learning.algorithm_config import ReinforcePPConfig
from search_agents.learning.encode import encode_episodes, prefill_of, tokenizer_fingerprint
from search_agents.learning.supervised import Supervised, SupervisedConfig
from search_agents.learning.trajectories import TrajectoryFolder
from search_agents.models import find_model
from search_env.episode import Rules
from search_env.errors import ConfigError

__all__ = [
    "algorithm_config",
    "build_algorithm",
    "build_supervised",
    "evaluation_engine",
    "gpus_per_learner",
    "open_trajectories",
    "supervised_config",
]

_FETCHED = ".evaluated"


def algorithm_config(config: TrainConfig) -> ReinforcePPConfig:
    """Translate a training config.

    Args:
        config: The resolved config of a run.

    Raises:
        ConfigError: If a name in it is unknown.
        ModelError: If there is no such model.
    """
    check_env_section(config.env, [stage.reward for stage in config.stages])
    rollout, learner = config.rollout, config.learner
    made: ReinforcePPConfig = (
        ReinforcePPConfig()
        .environment(config.env.id, env_config={**env_arguments(config.env), "split": "train"})
        .env_runners(
            num_env_runners=rollout.num_env_runners,
            num_envs_per_env_runner=rollout.num_envs,
            num_gpus_per_env_runner=config.gpus_per_env_runner,
        )
        .learners(num_learners=learner.num_learners, num_gpus_per_learner=gpus_per_learner(learner))
        .debugging(seed=config.run.seed)
        .training(
            model=find_model(config.model.path),
            dtype=config.model.dtype,
            autocast=learner.autocast,
            engine=config.model.engine,
            continuous=config.model.continuous,
            engine_dtype=config.model.vllm.dtype,
            kv_cache_gb=config.model.vllm.kv_cache_gb,
            tensor_parallel_size=config.model.vllm.tensor_parallel_size,
            packing=learner.packing,
            gradient_checkpointing=learner.gradient_checkpointing,
            sharded=learner.sharded,
            lora=learner.lora.model_dump() if learner.lora else None,
            advantage=learner.advantage,
            lr=learner.lr,
            prompts_per_batch=learner.prompts_per_batch,
            group_size=learner.group_size,
            minibatch_size=learner.minibatch_size,
            micro_batch_tokens=learner.micro_batch_tokens,
            kl_coef=learner.kl_coef,
            kl_in=learner.kl_in,
            kl_estimator=learner.kl_estimator,
            objective=learner.objective,
            clip=learner.clip,
            clip_high=learner.clip_high,
            aggregation=learner.aggregation,
            mismatch=learner.mismatch,
            mismatch_cap=learner.mismatch_cap,
            dynamic_sampling=learner.dynamic_sampling,
            mask_overlong=learner.mask_overlong,
            mask_documents=learner.mask_documents,
            grad_clip=learner.grad_clip,
            temperature=rollout.temperature,
            max_segment_tokens=rollout.max_segment_tokens,
            max_episode_tokens=rollout.max_episode_tokens,
            max_staleness=rollout.max_staleness,
            chat=config.chat,
            stages=[stage.model_dump(mode="json") for stage in config.stages],
            torch_threads=config.run.threads,
        )
    )
    return made


def build_algorithm(config: TrainConfig) -> ReinforcePP:
    """Build the algorithm of a run; loads data, index and model.

    Raises:
        SearchEnvError: If one of them is wrong.
        ConfigError: If the model cannot read as many tokens as an episode may have.
    """
    algorithm: ReinforcePP = algorithm_config(config).build_algo()
    _check_context(algorithm, config)
    return algorithm


def supervised_config(config: SFTConfig) -> SupervisedConfig:
    """Translate the config of a supervised training.

    Args:
        config: The resolved config of a run.

    Raises:
        ModelError: If there is no such model.
    """
    learner = config.learner
    made: SupervisedConfig = (
        SupervisedConfig()
        .learners(num_learners=learner.num_learners, num_gpus_per_learner=gpus_per_learner(learner))
        .debugging(seed=config.run.seed)
        .training(
            model=find_model(config.model.path),
            dtype=config.model.dtype,
            autocast=learner.autocast,
            packing=learner.packing,
            gradient_checkpointing=learner.gradient_checkpointing,
            sharded=learner.sharded,
            lora=learner.lora.model_dump() if learner.lora else None,
            lr=learner.lr,
            minibatch_size=learner.minibatch_size,
            micro_batch_tokens=learner.micro_batch_tokens,
            grad_clip=learner.grad_clip,
            epochs=config.sft.epochs,
            max_segment_tokens=config.rollout.max_segment_tokens,
            max_episode_tokens=config.rollout.max_episode_tokens,
            torch_threads=config.run.threads,
        )
    )
    return made


def build_supervised(config: SFTConfig, rules: Rules) -> tuple[Supervised, dict[str, Any]]:
    """Build the algorithm of a supervised run; loads trajectories and model.

    Args:
        config: The resolved config of the run.
        rules: Of the environment in which the model will be used: they word its prompts.

    Returns:
        The algorithm, and what it imitates in figures. Episodes longer than ``rollout.max_episode_tokens`` in the
        model's tokens are left out, and counted.

    Raises:
        RunError: If there are no trajectories.
        ConfigError: If their dialect, or the end of their prompts, is not that of the rules, or none is short enough.
        ModelError: If there is no such model.
    """
    folder = open_trajectories(config)
    stored, sampled = folder.episodes(), folder.description()
    _check_protocol(folder, sampled, config, rules)
    algorithm: Supervised = supervised_config(config).build_algo()
    _check_context(algorithm, config)
    tokenizer = algorithm.tokenizer
    same_tokens = tokenizer_fingerprint(tokenizer) == sampled["tokenizer_fingerprint"]
    episodes = encode_episodes(
        stored,
        tokenizer,
        rules,
        chat=config.chat,
        same_tokens=same_tokens,
    )
    longest = config.rollout.max_episode_tokens
    short = [episode for episode in episodes if len(episode.token_ids) <= longest]
    if not short:
        raise ConfigError(
            f"each of the {len(stored)} trajectories in {folder.path} has more than rollout.max_episode_tokens = "
            f"{longest} tokens. Write --rollout.max-episode-tokens "
            f"{max(len(episode.token_ids) for episode in episodes)}, or less."
        )
    algorithm.imitate(short)
    return algorithm, {
        "episodes": len(short),
        "with_search": sum(episode.metrics["searches"] > 0 for episode in short),
        "too_long": len(stored) - len(short),
        "tokens": sum(len(episode.token_ids) for episode in short),
        "imitated_tokens": sum(int(episode.action_mask.sum()) for episode in short),
        "encoded_again": not same_tokens,
        "sampling": {key: sampled[key] for key in ("config", "counts", "environment", "model_fingerprint")},
    }


def _check_protocol(folder: TrajectoryFolder, sampled: Mapping[str, Any], config: SFTConfig, rules: Rules) -> None:
    spoken = sampled["config"]["env"]["dialect"]
    if spoken != config.env.dialect:
        raise ConfigError(
            f"env.dialect is {config.env.dialect!r}, but the trajectories in {folder.path} are written in "
            f"{spoken!r}. Write --env.dialect {spoken}."
        )
    if sampled["prefill"] != prefill_of(rules):
        raise ConfigError(
            f"the prompt {config.env.prompt!r} ends in {prefill_of(rules)!r}, but the trajectories in {folder.path} go "
            f"on from {sampled['prefill']!r}. Write --env.prompt {sampled['config']['env']['prompt']}."
        )


def open_trajectories(config: SFTConfig) -> TrajectoryFolder:
    """The folder that a supervised training learns from.

    Raises:
        ConfigError: If the config names none.
        RunError: If it is none.
    """
    if config.sft.trajectories is None:
        raise ConfigError(
            "there is nothing to imitate. Give a folder of `search-env sample`: --sft.trajectories FOLDER."
        )
    return TrajectoryFolder.open(Path(config.sft.trajectories))


def evaluation_engine(algorithm: ReinforcePP, scratch: Path) -> TransformersEngine:
    """An engine on the weights that the algorithm has now.

    In one process it shares the learner's module, without a copy; else the weights are fetched from the learners, in
    the number format that episodes are computed in.

    Args:
        algorithm: The run.
        scratch: A folder that all machines of the run share; weights that are fetched lie below it meanwhile.

    Raises:
        RunError: If the first learner does not share that folder.
    """
    if algorithm.config.shares_module:
        return _shared_engine(algorithm)
    folder = scratch / _FETCHED
    shutil.rmtree(folder, ignore_errors=True)  # what a stopped run left
    try:
        algorithm.save_model(folder)
        config = algorithm.config
        engine_dtype = config.engine_dtype if config.engine == "vllm" else None
        dtype = "bfloat16" if config.autocast else engine_dtype or config.dtype
        device = _free_device() if config.num_gpus_per_learner else "cpu"
        fetched = TransformersEngine.from_pretrained(folder, dtype=dtype, device=device, continuous=config.continuous)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    fetched.autocast = config.autocast
    return fetched


def _shared_engine(algorithm: ReinforcePP) -> TransformersEngine:
    module = algorithm.learner_group._learner.module[DEFAULT_MODULE_ID]
    return TransformersEngine(
        module.model, module.tokenizer, autocast=algorithm.config.autocast, continuous=algorithm.config.continuous
    )


def _free_device() -> str:
    """The last GPU that this process sees: Ray gives its actors the first ones, and this one if there is no other."""
    return f"cuda:{torch.cuda.device_count() - 1}" if find_device("auto") == "cuda" else "cpu"


def gpus_per_learner(section: OptimizerSection) -> int:
    """GPUs of each learner: as many as the config says, or one where this process finds any."""
    if section.num_gpus_per_learner is None:
        return int(find_device("auto") == "cuda")
    return section.num_gpus_per_learner


def _check_context(algorithm: ReinforcePP, config: TrainConfig | SFTConfig) -> None:
    longest = config.rollout.max_episode_tokens
    if algorithm.config.shares_module and longest > (most := _shared_engine(algorithm).max_context):
        raise ConfigError(
            f"rollout.max_episode_tokens is {longest}, but the model {config.model.path!r} reads at most {most} "
            f"tokens. Write --rollout.max-episode-tokens {most}, or less."
        )

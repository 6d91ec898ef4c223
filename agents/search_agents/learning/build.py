"""From a training config to the algorithm, and from the algorithm to an engine on its present weights."""

from __future__ import annotations

import tempfile

from search_agents.config import TrainConfig
from search_agents.engines.transformers import TransformersEngine
from search_agents.evaluation.environments import check_env_section, env_arguments
from search_agents.learning.algorithm import ReinforcePP
from search_agents.learning.algorithm_config import ReinforcePPConfig
from search_agents.models import find_model
from search_env.errors import ConfigError

__all__ = ["algorithm_config", "build_algorithm", "evaluation_engine"]


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
        .env_runners(num_env_runners=rollout.num_env_runners, num_envs_per_env_runner=rollout.num_envs)
        .learners(num_learners=learner.num_learners)
        .debugging(seed=config.run.seed)
        .training(
            model=find_model(config.model.path),
            dtype=config.model.dtype,
            autocast=learner.autocast,
            advantage=learner.advantage,
            lr=learner.lr,
            prompts_per_batch=learner.prompts_per_batch,
            group_size=learner.group_size,
            minibatch_size=learner.minibatch_size,
            micro_batch_tokens=learner.micro_batch_tokens,
            kl_coef=learner.kl_coef,
            clip=learner.clip,
            grad_clip=learner.grad_clip,
            temperature=rollout.temperature,
            max_segment_tokens=rollout.max_segment_tokens,
            max_episode_tokens=rollout.max_episode_tokens,
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
    longest = config.rollout.max_episode_tokens
    if algorithm.config.shares_module and longest > (most := algorithm.env_runner.engine.max_context):
        raise ConfigError(
            f"rollout.max_episode_tokens is {longest}, but the model {config.model.path!r} reads at most {most} "
            f"tokens. Write --rollout.max-episode-tokens {most}, or less."
        )
    return algorithm


def evaluation_engine(algorithm: ReinforcePP) -> TransformersEngine:
    """An engine on the weights that the algorithm has now.

    In one process it is the runner's own, without a copy; else the weights are fetched from the learners.
    """
    if algorithm.config.shares_module:
        engine: TransformersEngine = algorithm.env_runner.engine
        return engine
    with tempfile.TemporaryDirectory() as folder:
        algorithm.save_model(folder)
        fetched = TransformersEngine.from_pretrained(folder, dtype=algorithm.config.dtype)
    fetched.autocast = algorithm.config.autocast
    return fetched

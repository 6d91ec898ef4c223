"""Environments as a config describes them, checked before anything heavy is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, cast

import gymnasium

from search_agents.config.recipes import find_prompt
from search_agents.config.sections import EnvSection
from search_env import SearchQAEnv, SearchQAVectorEnv
from search_env.dialects import PromptStyle, get_dialect, read_prompt_file
from search_env.env import find_dataset
from search_env.errors import ConfigError, DatasetError, unknown_name
from search_env.registration import ENVIRONMENTS
from search_env.retrieval import retriever_settings
from search_env.rewards import get_reward

__all__ = ["check_env_section", "check_splits", "env_arguments", "make_env", "make_vector_env"]


def check_env_section(section: EnvSection, rewards: Iterable[str | Mapping[str, float]] = ()) -> None:
    """Check every name in an environment's settings.

    Raises:
        ConfigError: If one is unknown or wrong, or the prompt file cannot be read.
    """
    if section.id not in ENVIRONMENTS:
        raise ConfigError(unknown_name("environment", section.id, ENVIRONMENTS))
    retriever_settings(section.retriever)
    get_dialect(section.dialect)
    if section.prompt not in tuple(PromptStyle):
        read_prompt_file(find_prompt(section.prompt))
    for reward in rewards:
        get_reward(reward)


def check_splits(section: EnvSection, splits: Iterable[str]) -> list[str]:
    """Open the questions of a dry run.

    Args:
        section: The environment's settings, its names already checked.
        splits: What will be asked.

    Returns:
        A line for each split of a set that is not on this machine, because nobody said where it is.

    Raises:
        ConfigError: If there is no such split.
        DatasetError: If the data is not where it was said to be, or is malformed.
    """
    name, missing = ENVIRONMENTS[section.id], []
    for split in dict.fromkeys(splits):
        try:
            find_dataset(name, section.data, split)
        except DatasetError:
            if section.data is not None:
                raise
            missing.append(f"not checked: {name}/{split} is not shipped; give --data FOLDER")
    return missing


def env_arguments(section: EnvSection) -> dict[str, Any]:
    """The keyword arguments of the environment: the section without the id, a shipped prompt by its path."""
    return {**section.model_dump(mode="json", exclude={"id"}), "prompt": find_prompt(section.prompt)}


def make_env(section: EnvSection, **arguments: Any) -> SearchQAEnv:
    """Make one environment.

    Args:
        section: Its settings.
        **arguments: More of the environment's own, for example `split`.

    Raises:
        ConfigError: If a setting is wrong.
        DatasetError: If the data is missing or malformed.
    """
    check_env_section(section)
    made = gymnasium.make(section.id, **{**env_arguments(section), **arguments})
    return cast(SearchQAEnv, made.unwrapped)


def make_vector_env(section: EnvSection, *, num_envs: int, **arguments: Any) -> SearchQAVectorEnv:
    """Make `num_envs` environments that search together; see `make_env`."""
    check_env_section(section)
    made = gymnasium.make_vec(section.id, num_envs=num_envs, **{**env_arguments(section), **arguments})
    return cast(SearchQAVectorEnv, made.unwrapped)

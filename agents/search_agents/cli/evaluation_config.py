"""What ``eval`` and ``difficulty`` share: the flags of an evaluation, and the config that they and the model make."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search_agents.cli.arguments import RETRIEVER_HELP, Parser, add_settings, overrides
from search_agents.config import EvalConfig, Override, find_recipe, load_config

if TYPE_CHECKING:
    from search_agents.methods import MethodSpec

__all__ = ["add_evaluation_settings", "load_over_protocol", "read_config"]


def add_evaluation_settings(parser: Parser) -> None:
    """Add the flags that say what is asked, and by what."""
    add_settings(
        parser,
        {
            "--method": ("method", "what answers; `search-env list methods`"),
            "--env": ("env.id", "environment"),
            "--data": ("env.data", "data of the environment"),
            "--retriever": ("env.retriever", RETRIEVER_HELP),
            "--model": ("model.path", "tiny, a model or run folder, or a hub id"),
            "--limit": ("evaluation.questions", "most questions to ask, spread over the split"),
            "--seed": ("run.seed", "seed of the sampling"),
        },
        also={"--method": "--agent"},
    )


def read_config(
    arguments: argparse.Namespace, settings: Sequence[str], *, check_method: Callable[[MethodSpec], Any] | None = None
) -> EvalConfig:
    """The config of an evaluation: the model's own protocol, then recipes, then flags, all of it checked.

    Args:
        arguments: What the parser has read.
        settings: The other flags.
        check_method: Refuses a method; by default one that cannot answer questions as the config has it.

    Raises:
        ConfigError: If a setting is wrong.
        ModelError: If there is no such model.
    """
    from search_agents import methods
    from search_agents.evaluation.environments import check_env_section

    config = load_over_protocol(
        [find_recipe(given, "eval") for given in arguments.config], overrides(arguments, settings, EvalConfig)
    )
    check_env_section(config.env)
    (check_method or methods.check_method)(config.method)
    return config


def load_over_protocol(files: Sequence[Path], given: Sequence[Override]) -> EvalConfig:
    """Recipes and flags over the protocol of the model that they name.

    Raises:
        ConfigError: If a setting is wrong.
        ModelError: If there is no such model.
    """
    from search_agents.models import read_protocol

    protocol, source = read_protocol(load_config(EvalConfig, files, given).model)
    return load_config(EvalConfig, files, given, base=protocol, base_source=source)

"""``search-env plan``: which processes a training run has, and whether their memory fits the GPUs."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from search_agents.cli.arguments import Parser, add_settings, gigabytes, overrides, settings_help, whole_number
from search_agents.cli.terminal import write
from search_agents.config import TrainConfig, find_recipe, load_config

__all__ = ["parser", "run"]

_DEFAULT_RECIPE = "fictional-wiki"


def parser(verb: str, purpose: str) -> Parser:
    """The arguments of the verb."""
    made = Parser(
        verb,
        purpose,
        examples=(
            "search-env plan --config smollm2-135m-hotpotqa --model FOLDER --gpus 1",
            "search-env plan --config r1-searcher-qwen-7b --model FOLDER --gpus 8 --gpu-memory 80",
            "search-env plan --config r1-searcher-qwen-7b --model FOLDER --gpus 8 --learner.num-learners 6",
        ),
        more="The model's config.json is enough; its weights are not read.\n\n" + settings_help(TrainConfig),
    )
    add_settings(made, {"--model": ("model.path", "a folder with a config.json, or a hub id")})
    made.add_argument(
        "--gpus", type=whole_number(0), default=1, metavar="N", help="GPUs of the machine or cluster [%(default)s]"
    )
    made.add_argument("--gpu-memory", type=gigabytes, default=80.0, metavar="GB", help="of each [%(default)s]")
    return made


def run(arguments: argparse.Namespace, settings: Sequence[str]) -> int:
    """Print the plan; 2 if it does not fit."""
    files = [find_recipe(given, "train") for given in arguments.config or [_DEFAULT_RECIPE]]
    config = load_config(TrainConfig, files, overrides(arguments, settings, TrainConfig))
    from search_agents.learning.plan import make_plan
    from search_agents.models import find_model

    plan = make_plan(config, find_model(config.model.path), gpus=arguments.gpus, memory=arguments.gpu_memory * 1e9)
    write(plan.text())
    return 0 if not plan.problems else 2

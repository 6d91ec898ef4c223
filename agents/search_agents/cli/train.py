"""``search-env train``: a recipe in, a better agent in a run folder out.

The last line on stdout is the run folder. Everything that can be told to be wrong
without loading a model is told before a model is loaded.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from search_agents.cli.arguments import RETRIEVER_HELP, Parser, add_settings, overrides, settings_help
from search_agents.cli.terminal import write
from search_agents.config import TrainConfig, find_recipe, load_config
from search_agents.learning.progress import DISPLAYS

__all__ = ["parser", "run"]

_DEFAULT_RECIPE = "fictional-wiki"


def parser(verb: str, purpose: str) -> Parser:
    """The arguments of the verb."""
    made = Parser(
        verb,
        purpose,
        examples=(
            "search-env train",
            "search-env train --config fictional-wiki --seed 1 --learner.lr 5e-4 --out outputs/faster",
            "search-env train --config smollm2-135m-hotpotqa --data ../shared/data/hotpotqa --dry-run",
        ),
        more=settings_help(TrainConfig),
    )
    add_settings(
        made,
        {
            "--data": ("env.data", "data of the environment"),
            "--retriever": ("env.retriever", RETRIEVER_HELP),
            "--model": ("model.path", "tiny, a model or run folder, or a hub id"),
            "--seed": ("run.seed", "seed of the run"),
        },
    )
    made.add_argument("--out", type=Path, metavar="FOLDER", help="run folder, new or empty [outputs/<name>-<time>]")
    made.add_argument("--display", choices=DISPLAYS, default="auto", help="live bar, or plain lines [%(default)s]")
    made.add_argument(
        "--dry-run",
        action="store_true",
        help="check the settings and open the questions, print the resolved config, then stop",
    )
    return made


def run(arguments: argparse.Namespace, settings: Sequence[str]) -> int:
    """Train, or say what would be trained."""
    from search_agents.evaluation.environments import check_env_section, check_splits
    from search_agents.models import find_model

    files = [find_recipe(given, "train") for given in arguments.config or [_DEFAULT_RECIPE]]
    config = load_config(TrainConfig, files, overrides(arguments, settings, TrainConfig))
    check_env_section(config.env, [stage.reward for stage in config.stages])
    find_model(config.model.path)
    if arguments.dry_run:
        for line in check_splits(
            config.env, [*(stage.split or "train" for stage in config.stages), config.evaluation.split]
        ):
            sys.stderr.write(f"{line}\n")
        write(json.dumps(config.model_dump(mode="json"), indent=2))
        return 0

    from search_agents.learning.start import limit_threads

    limit_threads(config.run.threads)
    from search_agents.learning.train import train

    write(str(train(config, out=arguments.out, display=arguments.display)))
    return 0

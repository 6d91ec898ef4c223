"""``search-env sft``: supervised training on the episodes that ``search-env sample`` has kept.

It leaves a run folder like that of ``search-env train``, so its model can be evaluated,
or trained on by reinforcement. Environment, budgets and model are those of the sampling
unless recipe or flags say otherwise. The last line on stdout is the run folder.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from search_agents.cli.arguments import RETRIEVER_HELP, Parser, add_settings, overrides, settings_help
from search_agents.cli.terminal import write
from search_agents.config import SFTConfig, find_recipe, load_config
from search_agents.learning.progress import DISPLAYS
from search_env.errors import ConfigError

__all__ = ["parser", "run"]


def parser(verb: str, purpose: str) -> Parser:
    """The arguments of the verb."""
    made = Parser(
        verb,
        purpose,
        examples=(
            "search-env sft --config fictional-wiki --trajectories outputs/right",
            "search-env sft --trajectories outputs/right --learner.lr 1e-4 --sft.epochs 1 --out outputs/imitator",
            "search-env sft --trajectories outputs/from-a-teacher --model Qwen/Qwen2.5-0.5B --env.prompt base",
        ),
        more=settings_help(SFTConfig),
    )
    add_settings(
        made,
        {
            "--trajectories": ("sft.trajectories", "folder of `search-env sample`"),
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
    from search_agents.learning.start import limit_threads
    from search_agents.learning.trajectories import TrajectoryFolder
    from search_agents.models import find_model

    files = [find_recipe(given, "sft") for given in arguments.config]
    given = overrides(arguments, settings, SFTConfig)
    trajectories = load_config(SFTConfig, files, given).sft.trajectories
    if trajectories is None:
        raise ConfigError("there is nothing to imitate. Give a folder of `search-env sample`: --trajectories FOLDER.")
    sampling = TrajectoryFolder.open(Path(trajectories))
    lengths = {"max_segment_tokens", "max_episode_tokens"}
    sampled = sampling.config().model_dump(mode="json", include={"env": True, "model": True, "rollout": lengths})
    config = load_config(SFTConfig, files, given, base=sampled, base_source=f"{trajectories}/sampling.json")
    check_env_section(config.env)
    find_model(config.model.path)
    if arguments.dry_run:
        for line in check_splits(config.env, [config.evaluation.split]):
            sys.stderr.write(f"{line}\n")
        write(json.dumps(config.model_dump(mode="json"), indent=2))
        return 0

    limit_threads(config.run.threads)
    from search_agents.learning.train import train

    write(str(train(config, out=arguments.out, display=arguments.display)))
    return 0

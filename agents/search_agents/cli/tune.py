"""``search-env tune``: a sweep over fields of a training recipe, with early stopping or population-based training.

After a stop the same command goes on. Settings of the recipe (``--learner.lr 1e-4``)
hold for all trials; settings of the sweep are those of the help.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

from search_agents.cli.arguments import RETRIEVER_HELP, Parser, add_settings, overrides, settings_help
from search_agents.cli.terminal import write
from search_agents.config import Override, TrainConfig, find_recipe, load_config
from search_agents.config.tuning import SweepConfig, base_recipe, check_sweep

__all__ = ["parser", "run"]

_DEFAULT_SWEEP = "asha"


def parser(verb: str, purpose: str) -> Parser:
    """The arguments of the verb."""
    made = Parser(
        verb,
        purpose,
        examples=(
            "search-env tune --config asha --out outputs/asha",
            "search-env tune --config asha --samples 16 --learner.advantage grpo --out outputs/grpo",
            "search-env tune --config my-sweep.yaml --data ../shared/data/hotpotqa --dry-run",
        ),
        more="After a stop the same command goes on; it reads Ray's pickles in FOLDER/ray, so do it with sweeps of "
        "your own only.\nFields of the recipe (see `search-env train --help`) given as flags hold for all trials. "
        f"What is swept is written in the file.\n\n{_help()}",
    )
    add_settings(
        made,
        {
            "--recipe": ("recipe", "the training recipe that is swept: a shipped name or a file"),
            "--metric": ("metric", "what is compared"),
            "--mode": ("mode", "max or min"),
            "--samples": ("samples", "trials"),
            "--scheduler": ("scheduler", "asha, pbt or fifo"),
            "--max-iterations": ("max_iterations", "iterations of a trial"),
            "--steps-per-iteration": ("steps_per_iteration", "training steps of an iteration"),
            "--concurrent": ("concurrent", "trials that run at the same time"),
            "--loggers": ("loggers", "list: '[csv, tensorboard, wandb, trackio]'"),
            "--data": ("env.data", "data of the environment"),
            "--retriever": ("env.retriever", RETRIEVER_HELP),
            "--model": ("model.path", "tiny, a model or run folder, or a hub id"),
            "--seed": ("seed", "seed of what is drawn"),
        },
    )
    made.add_argument(
        "--out", type=Path, metavar="FOLDER", help="new, or that of the same sweep [outputs/<name>-<time>]"
    )
    made.add_argument("--dry-run", action="store_true", help="check the settings, print the resolved sweep, then stop")
    return made


def _help() -> str:
    # What is drawn has names of its own below `space`, which are no flags.
    lines = settings_help(SweepConfig).splitlines()
    return "\n".join(line for line in lines if not line.startswith(("  --space.", "  --settings ", "  --name ")))


def run(arguments: argparse.Namespace, settings: Sequence[str]) -> int:
    """Sweep, or say what would be swept."""
    from search_agents.evaluation.environments import check_env_section
    from search_agents.models import find_model

    sweep = read_sweep(
        [find_recipe(given, "tune") for given in arguments.config or [_DEFAULT_SWEEP]],
        overrides(arguments, settings, TrainConfig),
    )
    recipe = base_recipe(sweep)
    for config in (recipe, *check_sweep(sweep, recipe)):
        check_env_section(config.env, [stage.reward for stage in config.stages])
        find_model(config.model.path)
    if arguments.dry_run:
        write(json.dumps(sweep.model_dump(mode="json", exclude_none=True), indent=2))
        return 0

    from search_agents.learning.start import limit_threads

    limit_threads(sweep.resources.cpus)
    from search_agents.tuning.sweep import run_sweep

    out = arguments.out or Path("outputs") / f"{sweep.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    write(run_sweep(sweep, recipe, out, tell=write))
    write(str(out))
    return 0


def read_sweep(files: Sequence[Path], given: Sequence[Override]) -> SweepConfig:
    """The sweep of some files under some flags; flags that name a field of the recipe become settings of all trials.

    Raises:
        ConfigError: If a setting of the sweep is wrong; those of the recipe are checked with the recipe.
    """
    of_recipe = {each.key: each.value for each in given if each.key.split(".")[0] in TrainConfig.model_fields}
    of_sweep = [each for each in given if each.key not in of_recipe]
    sweep = load_config(SweepConfig, files, of_sweep)
    return sweep.model_copy(update={"settings": {**sweep.settings, **of_recipe}})

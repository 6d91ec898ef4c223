"""``search-env sample``: rejection sampling, the first half of supervised training.

Every question is played several times, and the episodes that are right are kept in a
folder that ``search-env sft`` reads. The protocol that a trained model was trained with
is stored with it and taken over; recipe and flags win over it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from search_agents.cli.arguments import RETRIEVER_HELP, Parser, add_settings, overrides, settings_help
from search_agents.cli.terminal import write
from search_agents.config import Override, SampleConfig, find_recipe, load_config
from search_agents.learning.progress import DISPLAYS
from search_env.errors import RunError

__all__ = ["load_over_protocol", "parser", "run"]


def parser(verb: str, purpose: str) -> Parser:
    """The arguments of the verb."""
    made = Parser(
        verb,
        purpose,
        examples=(
            "search-env sample --config fictional-wiki --out outputs/right",
            "search-env sample --env SearchQA-MuSiQue-v0 --data musique --sampling.teacher annotation",
            "search-env sample --model Qwen/Qwen2.5-7B-Instruct --env SearchQA-HotpotQA-v0 --data hotpotqa "
            "--keep.metric f1 --keep.at-least 0.8 --keep.per-question 1",
        ),
        more="Episodes are kept as they come: after Ctrl-C or a crash, `search-env resume FOLDER` plays what is left.\n"
        f"\n{settings_help(SampleConfig)}",
    )
    add_settings(
        made,
        {
            "--env": ("env.id", "environment"),
            "--data": ("env.data", "data of the environment"),
            "--retriever": ("env.retriever", RETRIEVER_HELP),
            "--model": ("model.path", "tiny, a model or run folder, or a hub id"),
            "--limit": ("sampling.questions", "most questions to ask, spread over the split"),
            "--seed": ("run.seed", "seed of the sampling"),
        },
    )
    made.add_argument("--out", type=Path, metavar="FOLDER", help="where the episodes go [outputs/sample-<time>]")
    made.add_argument("--display", choices=DISPLAYS, default="auto", help="live bar, or plain lines [%(default)s]")
    made.add_argument(
        "--dry-run",
        action="store_true",
        help="check the settings and open the questions, print the resolved config, then stop",
    )
    return made


def run(arguments: argparse.Namespace, settings: Sequence[str]) -> int:
    """Sample, or say what would be sampled."""
    from search_agents.evaluation.environments import check_env_section, check_splits
    from search_agents.learning.start import limit_threads
    from search_agents.learning.trajectories import TrajectoryFolder

    config = load_over_protocol(
        [find_recipe(given, "sample") for given in arguments.config], overrides(arguments, settings, SampleConfig)
    )
    check_env_section(config.env)
    if arguments.dry_run:
        for line in check_splits(config.env, [config.sampling.split]):
            sys.stderr.write(f"{line}\n")
        write(json.dumps(config.model_dump(mode="json"), indent=2))
        return 0
    out: Path = arguments.out or Path("outputs") / f"sample-{time.strftime('%Y%m%d-%H%M%S')}"
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        begun = f", or go on with the sampling in it: search-env resume {out}" if TrajectoryFolder.is_at(out) else ""
        raise RunError(f"{out} exists and is not empty. Give another folder with --out{begun}.")

    limit_threads(config.run.threads)
    from search_agents.learning.sample import sample

    write(sample(config, out=out, display=arguments.display))
    write(str(out))
    return 0


def load_over_protocol(files: Sequence[Path], given: Sequence[Override]) -> SampleConfig:
    """Recipes and flags over the protocol of the model that they name.

    Raises:
        ConfigError: If a setting is wrong.
        ModelError: If there is no such model.
    """
    from search_agents.models import read_protocol

    protocol, source = read_protocol(load_config(SampleConfig, files, given).model)
    base = {key: value for key, value in protocol.items() if key in ("env", "rollout")}
    return load_config(SampleConfig, files, given, base=base, base_source=source)

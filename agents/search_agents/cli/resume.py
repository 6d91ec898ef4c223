"""``search-env resume``: the rest of a run, exactly as if it had not been stopped.

The run folder holds all that is needed. Settings may be repeated to make sure of
them: a run whose config differs is refused, with the names of the keys.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from search_agents.cli.arguments import Parser, add_settings, overrides
from search_agents.cli.terminal import write
from search_agents.config import TrainConfig, find_recipe, load_config
from search_agents.learning.progress import DISPLAYS
from search_agents.learning.run_folder import RunFolder

__all__ = ["parser", "run"]


def parser(verb: str, purpose: str) -> Parser:
    """The arguments of the verb."""
    made = Parser(
        verb,
        purpose,
        examples=(
            "search-env resume outputs/fictional-wiki-20260101-120000",
            "search-env resume outputs/my-run --display plain",
            "search-env resume outputs/my-run --config fictional-wiki --seed 1",
        ),
        more="Settings may be given as for `search-env train`; the run is refused if they differ from its own.",
    )
    made.add_argument("run", type=Path, metavar="RUN", help="the run folder")
    add_settings(made, {"--seed": ("run.seed", "seed of the run")})
    made.add_argument("--display", choices=DISPLAYS, default="auto", help="live bar, or plain lines [%(default)s]")
    return made


def run(arguments: argparse.Namespace, settings: Sequence[str]) -> int:
    """Go on with the run."""
    given = overrides(arguments, settings)
    folder = RunFolder.open(arguments.run)
    config = folder.config()
    if given or arguments.config:
        files = [find_recipe(name, "train") for name in arguments.config]
        base = None if files else config.model_dump(mode="json")
        folder.require_same(
            load_config(TrainConfig, files, given, base=base).model_dump(mode="json"), "the command line"
        )

    from search_agents.learning.start import limit_threads

    limit_threads(config.run.threads)
    from search_agents.learning.train import resume

    write(str(resume(folder, display=arguments.display)))
    return 0

"""``search-env bench``: whole tables by one command, each resumable by the same command.

``bench methods`` runs many methods on many sets of questions under one setting: one
model, one corpus a set, one retriever, one k, one budget.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from search_agents.cli.arguments import RETRIEVER_HELP, Parser, add_settings, overrides, settings_help
from search_agents.cli.terminal import write
from search_agents.config import ComparisonConfig, find_recipe, load_config

__all__ = ["parser", "run"]


def parser(verb: str, purpose: str) -> Parser:
    """The arguments of the verb."""
    made = Parser(
        verb,
        purpose,
        examples=(
            "search-env bench methods --model HuggingFaceTB/SmolLM2-135M-Instruct --out outputs/methods",
            "search-env bench methods --config my-comparison.yaml --limit 20 --out outputs/mine",
            "search-env bench methods --methods '[standard-rag, {name: ircot, variant: flashrag}]' --out outputs/two",
        ),
        more="After a stop the same command goes on; finished evaluations are left as they are.\n\n"
        f"{settings_help(ComparisonConfig)}",
    )
    made.add_argument("table", choices=("methods",), help="which table")
    add_settings(
        made,
        {
            "--methods": ("methods", "list of methods: '[NAME, {name: NAME, …}]'"),
            "--sets": ("sets", "list of sets of questions: '[{id: ID, data: FOLDER, split: SPLIT}, …]'"),
            "--model": ("model.path", "tiny, a model or run folder, or a hub id"),
            "--retriever": ("env.retriever", RETRIEVER_HELP),
            "--limit": ("evaluation.questions", "most questions of each set, spread over its split"),
            "--seed": ("run.seed", "seed of the sampling"),
        },
    )
    made.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the results go, or lie already")
    return made


def run(arguments: argparse.Namespace, settings: Sequence[str]) -> int:
    """Compare."""
    from search_agents.learning.start import limit_threads

    files = [find_recipe(given, "bench") for given in arguments.config or [arguments.table]]
    config = load_config(ComparisonConfig, files, overrides(arguments, settings))
    limit_threads(config.run.threads)
    from search_agents.evaluation.comparison import run_comparison

    write(run_comparison(config, arguments.out, tell=write))
    write(str(arguments.out))
    return 0

"""``search-env bench``: whole tables by one command, each resumable by the same command.

``bench methods`` runs many methods on many sets of questions under one setting: one
model, one corpus a set, one retriever, one k, one budget. ``bench ablation`` trains the
arms of one of the paper's ablations by several seeds and tells whether its finding holds.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from search_agents.cli.arguments import RETRIEVER_HELP, Parser, add_settings, overrides, settings_help, whole_number
from search_agents.cli.terminal import write
from search_agents.config import AblationConfig, ComparisonConfig, Override, TrainConfig, find_recipe, load_config
from search_agents.learning.progress import DISPLAYS
from search_env.errors import ConfigError

__all__ = ["parser", "run"]

_OF_METHODS = {"methods": "--methods", "sets": "--sets", "run.seed": "--seed"}


def parser(verb: str, purpose: str) -> Parser:
    """The arguments of the verb."""
    made = Parser(
        verb,
        purpose,
        examples=(
            "search-env bench methods --model HuggingFaceTB/SmolLM2-135M-Instruct --out outputs/methods",
            "search-env bench methods --methods '[standard-rag, {name: ircot, variant: flashrag}]' --out outputs/two",
            "search-env bench ablation reward --out outputs/ablation-reward",
        ),
        more="After a stop the same command goes on; finished evaluations and trainings are left as they are.\n"
        "`search-env list recipes` names the ablations; a file of yours in the form of theirs is one, too. Settings\n"
        "of an ablation are those of `search-env train`: they go to every arm whose recipe has the key, and what\n"
        f"makes an arm wins over them.\n\nFor methods:\n{settings_help(ComparisonConfig)}",
    )
    made.add_argument("table", choices=("methods", "ablation"), help="which table")
    made.add_argument("name", nargs="?", help="ablation: its name, or a file")
    add_settings(
        made,
        {
            "--methods": ("methods", "list of methods: '[NAME, {name: NAME, …}]'"),
            "--sets": ("sets", "list of sets of questions: '[{id: ID, data: FOLDER, split: SPLIT}, …]'"),
            "--model": ("model.path", "tiny, a model or run folder, or a hub id"),
            "--retriever": ("env.retriever", RETRIEVER_HELP),
            "--limit": ("evaluation.questions", "most questions of each set, spread over its split"),
            "--seed": ("run.seed", "methods: seed of the sampling"),
        },
    )
    made.add_argument(
        "--seeds", nargs="+", type=whole_number(0), metavar="SEED", help="ablation: seeds of every arm [its own]"
    )
    made.add_argument(
        "--reuse",
        nargs="+",
        type=Path,
        default=[],
        metavar="FOLDER",
        help="ablation: folders of others, whose trainings with the same settings are copied",
    )
    made.add_argument("--display", choices=DISPLAYS, default="auto", help="live bar, or plain lines [%(default)s]")
    made.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the results go, or lie already")
    return made


def run(arguments: argparse.Namespace, settings: Sequence[str]) -> int:
    """Make the table."""
    schema = TrainConfig if arguments.table == "ablation" else ComparisonConfig
    given = overrides(arguments, settings, schema)
    (_ablation if arguments.table == "ablation" else _methods)(arguments, given)
    return 0


def _methods(arguments: argparse.Namespace, given: Sequence[Override]) -> None:
    from search_agents.learning.start import limit_threads

    if arguments.name is not None or arguments.seeds is not None or arguments.reuse:
        raise ConfigError(
            "a name, --seeds and --reuse are for `search-env bench ablation`; methods takes --config and --seed."
        )
    files = [find_recipe(name, "bench") for name in arguments.config or ["methods"]]
    config = load_config(ComparisonConfig, files, given)
    limit_threads(config.run.threads)
    from search_agents.evaluation.comparison import require_scores, run_comparison

    write(run_comparison(config, arguments.out, tell=write, display=arguments.display))
    write(str(arguments.out))
    require_scores(config, arguments.out)


def _ablation(arguments: argparse.Namespace, given: Sequence[Override]) -> None:
    from search_agents.config import recipes
    from search_agents.learning.start import limit_threads

    if arguments.name is None or arguments.config:
        raise ConfigError(
            "write which ablation: search-env bench ablation NAME --out FOLDER. NAME is a file, or one of "
            f"{', '.join(recipes('ablations'))}."
        )
    if wrong := [_OF_METHODS[override.key] for override in given if override.key in _OF_METHODS]:
        raise ConfigError(
            f"{', '.join(wrong)}: not for an ablation. Its arms are in its file; seeds are --seeds 0 1 2."
        )
    file = find_recipe(arguments.name, "ablations")
    seeds = [] if arguments.seeds is None else [Override(key="seeds", value=str(arguments.seeds), source="--seeds")]
    config = load_config(AblationConfig, [file], seeds)
    first = config.plan(given, arguments.out, source=str(file))[0].config
    limit_threads(first.run.threads)
    from search_agents.ablations import run_ablation

    text = run_ablation(
        config,
        given,
        arguments.out,
        source=str(file),
        tell=write,
        display=arguments.display,
        reuse=arguments.reuse,
    )
    write(text)
    write(str(arguments.out))

"""``search-env fit``: train the part that a method has of its own, on training questions.

Labels come from the model in use, so a part belongs to that model. They are kept as they
come: the same command goes on after a stop.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from search_agents.cli.arguments import Parser, settings_help
from search_agents.cli.evaluation_config import add_evaluation_settings, read_config
from search_agents.cli.terminal import write
from search_agents.config import EvalConfig

__all__ = ["parser", "run"]


def parser(verb: str, purpose: str) -> Parser:
    """The arguments of the verb."""
    made = Parser(
        verb,
        purpose,
        examples=(
            "search-env fit --method skr --model MODEL --env SearchQA-HotpotQA-v0 --data DATA --out skr-part",
            "search-env fit --method '{name: recomp, encoder: ENCODER}' --model MODEL --limit 500 --out recomp-part",
            "search-env fit --method '{name: cr-planner, encoder: ENCODER}' --model MODEL --out critics",
        ),
        more="Then: search-env eval --method '{name: NAME, part: FOLDER}' …\n"
        f"The questions are those of the split train; --evaluation.split names another.\n\n{settings_help(EvalConfig)}",
    )
    add_evaluation_settings(made)
    made.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where labels and the part go")
    return made


def run(arguments: argparse.Namespace, settings: Sequence[str]) -> int:
    """Collect labels and train."""
    from search_agents.learning.start import limit_threads, quiet_libraries
    from search_agents.methods import fit_method, fit_options

    if not any(setting.startswith("--evaluation.split") for setting in settings):
        settings = [*settings, "--evaluation.split", "train"]
    config = read_config(arguments, settings, check_method=fit_options)
    limit_threads(config.run.threads)

    from search_agents.engines.build import make_engine
    from search_agents.evaluation.evaluate import HeldOut

    quiet_libraries()
    held_out = HeldOut(config)
    setting = held_out.setting(make_engine(config.model), temperature=config.evaluation.temperatures[0])
    figures = fit_method(config.method, setting, held_out.questions, arguments.out)
    write(json.dumps(figures, indent=2))
    write(str(arguments.out))
    return 0

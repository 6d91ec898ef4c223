"""``search-env compare``: is one evaluation better than another, and how sure is that."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from search_agents.cli.arguments import Parser, no_settings
from search_agents.cli.terminal import write
from search_env.render import visible

__all__ = ["parser", "run"]


def parser(verb: str, purpose: str) -> Parser:
    """The arguments of the verb."""
    made = Parser(
        verb,
        purpose,
        examples=(
            "search-env compare outputs/eval-before outputs/eval-after",
            "search-env compare outputs/methods/HotpotQA-v0/ircot outputs/methods/HotpotQA-v0/r1-searcher",
            "search-env compare outputs/eval-before outputs/eval-after --judge gpt-4o-mini --json",
        ),
        more="The interval is of B - A: a paired bootstrap over questions. p is of a permutation test: how often\n"
        "chance alone would put the two as far apart. ACC_L is there if one judge of `search-env score --judge` has\n"
        "judged every answer of both.",
    )
    made.add_argument("a", type=Path, metavar="RUN_A", help="folder of `search-env eval`")
    made.add_argument("b", type=Path, metavar="RUN_B", help="another, on the same questions and corpus")
    made.add_argument("--judge", metavar="MODEL", help="whose judgements count [those of the only judge]")
    made.add_argument("--json", action="store_true", help="print one JSON object")
    return made


def run(arguments: argparse.Namespace, settings: Sequence[str]) -> int:
    """Compare."""
    no_settings(parser("compare", ""), settings)
    from search_agents.evaluation.paired import compare_runs, read_run

    found = compare_runs(*(read_run(path, judge=arguments.judge) for path in (arguments.a, arguments.b)))
    write(json.dumps(found.to_dict()) if arguments.json else visible(found.report()))
    return 0

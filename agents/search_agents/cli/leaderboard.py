"""``search-env leaderboard``: rows with their episodes, scored again before anybody sees them."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from search_agents.cli.arguments import Parser, no_settings
from search_agents.cli.terminal import write
from search_env.errors import RunError
from search_env.render import visible

if TYPE_CHECKING:
    from search_agents.leaderboard.board import Board, Checked

__all__ = ["parser", "run"]

_ACTIONS = {
    "add": "put evaluations on the board, with their episodes (needs EVALUATION …)",
    "show": "write LEADERBOARD.md and leaderboard.html, and print the former",
    "check": "score every row again from its episodes and name those that differ",
}


def parser(verb: str, purpose: str) -> Parser:
    """The arguments of the verb."""
    actions = "\n".join(f"  {action:12}{text}" for action, text in _ACTIONS.items())
    made = Parser(
        verb,
        purpose,
        examples=(
            "search-env leaderboard add outputs/methods --board board",
            "search-env leaderboard show --board board",
            "search-env leaderboard check --board board --data FOLDER",
        ),
        more=f"actions:\n{actions}\n\nA row whose scores are not those of its episodes, or whose gold answers are not\n"
        "those of its set, is not shown: it is named, and show and check exit with 2. The oracle and the random\n"
        "agent belong on every board.",
    )
    made.add_argument("action", choices=_ACTIONS, metavar="ACTION", help=", ".join(_ACTIONS))
    made.add_argument(
        "evaluations",
        nargs="*",
        type=Path,
        metavar="EVALUATION",
        help="folder of `search-env eval` or `search-env bench`, for add",
    )
    made.add_argument("--board", type=Path, required=True, metavar="FOLDER", help="folder of the leaderboard")
    made.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="FOLDER",
        help="data that gold answers are held to, as of `search-env eval`; may be given again [the embedded sets']",
    )
    made.add_argument("--replace", action="store_true", help="add: write over the same experiment's other scores")
    made.add_argument("--judge", metavar="MODEL", help="add: whose judgements count [those of the only judge]")
    made.add_argument("--md", type=Path, metavar="FILE", help="show: where the Markdown goes [BOARD/LEADERBOARD.md]")
    made.add_argument("--html", type=Path, metavar="FILE", help="show: where the page goes [BOARD/leaderboard.html]")
    return made


def run(arguments: argparse.Namespace, settings: Sequence[str]) -> int:
    """Do what was asked."""
    made = parser("leaderboard", "")
    no_settings(made, settings)
    if arguments.action == "add" and not arguments.evaluations:
        made.error("leaderboard add needs a folder of `search-env eval` or `search-env bench`")
    if arguments.action != "add" and arguments.evaluations:
        made.error(f"leaderboard {arguments.action} takes no evaluations")
    from search_agents.leaderboard.board import Board

    board = Board(arguments.board, data=arguments.data)
    act = {"add": _add, "show": _show, "check": _check}[arguments.action]
    return act(board, arguments)


def _add(board: Board, arguments: argparse.Namespace) -> int:
    from search_agents.leaderboard.submit import candidates, evaluations_in

    for path in arguments.evaluations:
        finished, unfinished = evaluations_in(path)
        for place in unfinished:
            sys.stderr.write(f"{visible(str(place))}: not finished, left out\n")
        for folder in finished:
            for candidate in candidates(folder, judge=arguments.judge, data=arguments.data):
                name, written = board.add(candidate, replace=arguments.replace)
                write(visible(f"{name}{'' if written else ': there before, with the same scores'}"))
    return 0


def _show(board: Board, arguments: argparse.Namespace) -> int:
    from search_agents.leaderboard.markdown import markdown
    from search_agents.leaderboard.page import page
    from search_agents.leaderboard.published import read_published
    from search_agents.leaderboard.sections import sections
    from search_agents.learning.run_folder import write_text

    checked = board.check()
    shown = sections(checked, read_published(), board.path)
    text = markdown(shown)
    write_text(arguments.md or board.path / "LEADERBOARD.md", text)
    write_text(arguments.html or board.path / "leaderboard.html", page(shown))
    write(text)
    return _verdict(checked)


def _check(board: Board, arguments: argparse.Namespace) -> int:
    checked = board.check()
    code = _verdict(checked)
    write(f"{len(checked.rows)} rows agree with their episodes")
    return code


def _verdict(checked: Checked) -> int:
    """Name what was refused, and what is not certain.

    Raises:
        RunError: If anything was.
    """
    for warning in checked.warnings:
        sys.stderr.write(f"warning: {visible(warning)}\n")
    if checked.refused:
        lines = "\n".join(f"  {each.name}: {each.reason}" for each in checked.refused)
        raise RunError(
            f"{len(checked.refused)} of {len(checked.refused) + len(checked.rows)} rows are not what their episodes "
            f"or their set say and were left out:\n{lines}\n"
            "Restore them, or write them anew: search-env leaderboard add EVALUATION --board BOARD --replace"
        )
    return 0

"""The command ``search-env``: one module a verb, loaded only when its verb is used.

Exit codes: 0 done, 1 an unexpected failure (of a full disk one message, of others a
traceback), 2 something the user can put right (one message on stderr, no traceback),
130 interrupted, by Ctrl-C or by SIGTERM.
"""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType

from search_agents.cli.terminal import write
from search_env.errors import ConfigError, SearchEnvError, unknown_name
from search_env.render import visible

__all__ = ["main"]

_VERBS = {
    "list": "name every environment, dialect, reward, dataset, method, retriever and recipe",
    "play": "play an episode by hand in the terminal",
    "train": "train a search agent through the stages of a recipe, and evaluate it",
    "plan": "work out which processes a training run has, and whether their memory fits the GPUs",
    "tune": "sweep over fields of a training recipe: early stopping, or population-based training",
    "sample": "play questions several times and keep the episodes that are right, to imitate them",
    "sft": "train a search agent to imitate kept episodes, and evaluate it",
    "eval": "measure a method with a model on the questions of an environment",
    "score": "score saved episodes, of ours or of other projects",
    "compare": "compare two evaluations question by question",
    "view": "write the episodes of a run, or of two side by side, as one HTML file",
    "report": "write the curves, figures and samples of training runs, of one or of several seeds, as one HTML file",
    "resume": "go on with a training run, a sampling or an evaluation that was stopped",
    "index": "index a corpus for searching: on disk, or on a search server behind an alias",
    "data": "measure, check, fetch, index, join, generate and draw question sets",
    "fit": "train the part that a method has of its own: labels from the model in use, then the part",
    "bench": "compare many methods under one setting, or test a finding of the paper by training its arms",
    "leaderboard": "put evaluations on a board, score their episodes again, and show it",
    "doctor": "say what is wrong with this installation or machine, and what to type about it",
    "new": "write a package that adds an agent, retriever, dataset or reward, with a test of its own",
    "difficulty": "label questions by the number of attempts that an agent needs",
    "serve": "offer a retriever over HTTP, by Search-R1's API and by our own",
    "ask": "answer a question from your own documents, with its passages",
}

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

_BAD_PATHS = {
    NotADirectoryError: "a file is in the place of a folder. Give a path whose folders are no files.",
    FileExistsError: "it exists already and is no folder. Give another path.",
    IsADirectoryError: "it is a folder. Give the path of a file.",
    PermissionError: "permission is denied. Give a path that you may read and write.",
}

_EXAMPLES = """\
examples:
  search-env train
  search-env play --env SearchQA-FictionalWiki-v0
  search-env ask "Who wrote it?" --model outputs/my-run --corpus my.jsonl
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line.

    Args:
        argv: The arguments after the command's name; None takes those of the process.

    Returns:
        The exit code.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        return _dispatch(arguments)
    except SearchEnvError as error:
        notes = getattr(error, "__notes__", ())
        text = "; ".join([str(error).removesuffix("."), *notes]) if notes else str(error)
        sys.stderr.write(f"search-env: error: {visible(text)}\n")
        return 2
    except OSError as error:
        if isinstance(error, tuple(_BAD_PATHS)) and error.filename is not None:
            sys.stderr.write(f"search-env: error: {visible(_bad_path(error))}\n")
            return 2
        if error.errno not in _NO_ROOM:
            raise
        hints = "; ".join(["make room, and do it again", *getattr(error, "__notes__", ())])
        sys.stderr.write(f"search-env: error: {visible(f'no space is left on the disk: {error}; {hints}')}\n")
        return 1
    except KeyboardInterrupt as stop:
        sys.stderr.write(f"search-env: interrupted{f'; {visible(str(stop))}' if str(stop) else ''}\n")
        return 130
    except SystemExit as stop:  # argparse ends this way after --help
        return stop.code if isinstance(stop.code, int) else 0


def _bad_path(error: OSError) -> str:
    path = os.fsdecode(error.filename) if isinstance(error.filename, bytes) else error.filename
    return f"{path}: {next(text for kind, text in _BAD_PATHS.items() if isinstance(error, kind))}"


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        write(_overview())
        return 0
    verb, *rest = arguments
    if verb == "--version":
        write(f"search-env {_version()}")
        return 0
    if verb not in _VERBS:
        raise ConfigError(f"{unknown_name('verb', verb, _VERBS)} `search-env --help` shows what each one does.")
    module: ModuleType = importlib.import_module(f"search_agents.cli.{verb}")
    parser = module.parser(verb, _VERBS[verb])
    parsed, settings = parser.parse_known_args(rest)
    if verb == "serve":  # it ends by the signal, once its answers are on their way
        code: int = module.run(parsed, settings)
    else:
        with _terminated_as_interrupted():
            code = module.run(parsed, settings)
    return code


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM, by which schedulers end a job, does what Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread can take signals
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _overview() -> str:
    verbs = "\n".join(f"  {verb:12}{purpose}" for verb, purpose in _VERBS.items())
    return (
        "usage: search-env VERB ...\n\nThe Gymnasium of search agents.\n\n"
        f"verbs (search-env VERB --help tells more):\n{verbs}\n\n{_EXAMPLES}"
    ).rstrip()


def _version() -> str:
    try:
        return version("search-env")
    except PackageNotFoundError:
        return "(not installed)"

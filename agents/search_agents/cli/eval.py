"""``search-env eval``: one method, one model, one set of questions, one row of a table.

The protocol that a trained model was trained with is stored with it and taken over;
recipe and flags win over it. An evaluation that was stopped goes on with ``search-env resume``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from search_agents.cli.arguments import Parser, settings_help
from search_agents.cli.evaluation_config import add_evaluation_settings, read_config
from search_agents.cli.terminal import write
from search_agents.config import EvalConfig
from search_agents.learning.progress import DISPLAYS
from search_env.errors import RunError

__all__ = ["parser", "run"]


def parser(verb: str, purpose: str) -> Parser:
    """The arguments of the verb."""
    made = Parser(
        verb,
        purpose,
        examples=(
            "search-env eval --model tiny --limit 50",
            "search-env eval --model outputs/my-run --method standard-rag --out outputs/rag",
            "search-env eval --config search-r1-qwen-7b --evaluation.temperatures '[0]' --env.top-k 5 --dry-run",
        ),
        more="Answers are kept as they come: after Ctrl-C or a crash, `search-env resume FOLDER` asks what is left,\n"
        f"and again the questions whose search failed.\n\n{settings_help(EvalConfig)}",
    )
    add_evaluation_settings(made)
    made.add_argument("--display", choices=DISPLAYS, default="auto", help="live bar, or plain lines [%(default)s]")
    made.add_argument("--dry-run", action="store_true", help="check all but the weights, say what would run, then stop")
    made.add_argument("--out", type=Path, metavar="FOLDER", help="where the results go [outputs/eval-<method>-<time>]")
    return made


def run(arguments: argparse.Namespace, settings: Sequence[str]) -> int:
    """Evaluate."""
    from search_agents.evaluation.evaluation_folder import EvaluationFolder
    from search_agents.learning.start import limit_threads
    from search_agents.methods import method_name

    config = read_config(arguments, settings)
    if arguments.dry_run:
        from search_agents.evaluation.dry_run import dry_run

        write(dry_run(config))
        return 0
    out: Path = arguments.out or Path("outputs") / f"eval-{method_name(config.method)}-{time.strftime('%Y%m%d-%H%M%S')}"
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        begun = f", or go on with the evaluation in it: search-env resume {out}" if EvaluationFolder.is_at(out) else ""
        raise RunError(f"{out} exists and is not empty. Give another folder with --out{begun}.")

    limit_threads(config.run.threads)
    from search_agents.evaluation.evaluation_run import require_scores, run_evaluation

    write(run_evaluation(config, out=out, display=arguments.display))
    write(str(out))
    require_scores(EvaluationFolder(out))
    return 0

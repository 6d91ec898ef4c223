"""``search-env difficulty``: label questions by the number of attempts that an agent needs."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from search_agents.cli.arguments import Parser, settings_help
from search_agents.cli.evaluation_config import add_evaluation_settings, read_config
from search_agents.cli.terminal import write
from search_agents.config import EvalConfig

__all__ = ["parser", "run"]

_METRICS = ("cem", "em", "cem_contiguous")


def parser(verb: str, purpose: str) -> Parser:
    """The arguments of the verb."""
    made = Parser(
        verb,
        purpose,
        examples=(
            "search-env difficulty --model tiny --limit 100 --out labels.jsonl",
            "search-env difficulty --model Qwen/Qwen2.5-7B-Instruct --env SearchQA-HotpotQA-v0 "
            "--data hotpotqa/hotpot_qa --evaluation.split train --env.prompt instruct --out hotpotqa-labels.jsonl",
            "search-env difficulty --model tiny --method naive-generation --metric em --limit 50 --out hard.jsonl",
        ),
        more="Run it again with the same --out to go on after a stop. Fewer than 10 attempts are easy, 10 to 20\n"
        f"medium, more difficult.\n\n{settings_help(EvalConfig)}",
    )
    add_evaluation_settings(made)
    made.add_argument("--metric", choices=_METRICS, default=_METRICS[0], help="1 for a right answer [%(default)s]")
    made.add_argument("--out", type=Path, required=True, metavar="FILE", help="labelled questions, JSON lines")
    return made


def run(arguments: argparse.Namespace, settings: Sequence[str]) -> int:
    """Label the questions."""
    from search_agents.learning.start import limit_threads

    config = read_config(arguments, settings)
    limit_threads(config.run.threads)

    from rich.progress import Progress

    from search_agents.curriculum import label_difficulty
    from search_agents.engines.build import make_engine
    from search_agents.evaluation.evaluate import HeldOut
    from search_agents.learning.start import quiet_libraries

    quiet_libraries()
    held_out = HeldOut(config)
    setting = held_out.setting(make_engine(config.model), temperature=config.evaluation.temperatures[0])
    with Progress(*Progress.get_default_columns(), disable=not sys.stdout.isatty()) as bar:
        task = bar.add_task("questions", total=len(held_out.questions))
        labels = label_difficulty(
            setting,
            held_out.questions,
            arguments.out,
            method=config.method,
            metric=arguments.metric,
            on_progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    levels = Counter(label.question.level for label in labels)
    write(f"{arguments.out}: " + ", ".join(f"{levels[level]} {level}" for level in ("easy", "medium", "difficult")))
    return 0

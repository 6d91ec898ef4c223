"""``search-env ask``: an answer from the user's own documents, with the passages behind it."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from search_agents.cli.arguments import RETRIEVER_HELP, Parser, add_settings, overrides
from search_agents.cli.evaluation_config import load_over_protocol
from search_agents.cli.terminal import write
from search_agents.config import EvalConfig
from search_agents.models import SHIPPED
from search_env.errors import ConfigError
from search_env.render import visible

if TYPE_CHECKING:
    from search_agents.evaluation.asking import Reply

__all__ = ["parser", "run"]


def parser(verb: str, purpose: str) -> Parser:
    """The arguments of the verb."""
    made = Parser(
        verb,
        purpose,
        examples=(
            'search-env ask "Who founded the company?" --model outputs/my-run --corpus my.jsonl',
            'search-env ask "Which is older, A or B?" --model outputs/my-run --corpus my.jsonl --json',
            'search-env ask "Who leads it now?" --model outputs/my-run --retriever bamboogle-online.yaml',
        ),
        more='The corpus holds one {"id": …, "title": …, "text": …} a line. A retriever that has documents of its own\n'
        "(elasticsearch, opensearch, http, online, replay, bm25 with an index) needs none. Settings as for `search-env "
        "eval`.",
    )
    made.add_argument("question", help="the question, in quotes")
    made.add_argument("--corpus", type=Path, metavar="FILE", help="your documents, JSON lines")
    add_settings(
        made,
        {
            "--model": ("model.path", "tiny, a model or run folder, or a hub id"),
            "--retriever": ("env.retriever", RETRIEVER_HELP),
            "--seed": ("run.seed", "seed of the sampling"),
        },
    )
    made.add_argument("--temperature", type=float, default=0.0, help="0 takes the likeliest words [%(default)s]")
    made.add_argument("--json", action="store_true", help="print one JSON object")
    return made


def run(arguments: argparse.Namespace, settings: Sequence[str]) -> int:
    """Ask one question."""
    from search_agents.evaluation.environments import check_env_section
    from search_agents.learning.start import limit_threads
    from search_env.datasets import read_corpus

    if not arguments.question.strip():
        raise ConfigError('the question is empty. Write it in quotes: search-env ask "Who …?" --corpus my.jsonl')
    if settings and not settings[0].startswith("-"):
        raise ConfigError(
            f"unknown argument {settings[0]!r}. If it is a word of the question, put the question in quotes: "
            'search-env ask "Who …?" --corpus my.jsonl'
        )
    config = load_over_protocol((), overrides(arguments, settings, EvalConfig))
    check_env_section(config.env)
    documents = read_corpus(arguments.corpus) if arguments.corpus else ()

    limit_threads(config.run.threads)
    from search_agents.evaluation.asking import ask

    if config.model.path in SHIPPED and arguments.corpus:
        sys.stderr.write(
            f"note: the model {config.model.path!r} can read the encyclopaedia that it was trained on and little else; "
            "give --model FOLDER_OR_ID for documents of your own\n"
        )
    reply = ask(arguments.question, documents, config, temperature=arguments.temperature)
    write(json.dumps(reply.to_dict(), indent=2) if arguments.json else _told(reply))
    return 0


def _told(reply: Reply) -> str:
    lines = [f"Answer: {visible(reply.answer)}" if reply.answer else f"No answer ({reply.stop_reason})."]
    lines += ["", "Searches:", *(f"  {visible(query)}" for query in reply.queries)] if reply.queries else []
    lines += ["", "Passages read (* holds the answer):"] if reply.passages else ["", "No passage was read."]
    for number, passage in enumerate(reply.passages, start=1):
        mark = "*" if passage.holds_answer else " "
        document = passage.document
        lines.append(f" {mark}[{number}] {visible(document.id)}: {visible(document.title)}")
        lines.append(f"      {visible(' '.join(document.text.split()))}")
    return "\n".join(lines)

"""``search-env index``: load a corpus into a search server, behind an alias."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from search_agents.cli.arguments import Parser, no_settings
from search_agents.cli.terminal import write
from search_env.errors import ConfigError

if TYPE_CHECKING:
    from search_env.retrieval.elasticsearch import ElasticsearchSettings

__all__ = ["parser", "run"]

_ENGINES = ("elasticsearch", "opensearch")
_SETTINGS = {
    "url": "address of the server, for example http://127.0.0.1:9200",
    "index": "alias that searches use; the index behind it is named after the corpus",
    "api_key_env": "environment variable that holds the API key",
    "username_env": "environment variable that holds the user's name",
    "password_env": "environment variable that holds the password",
    "ca_file_env": "environment variable that holds the path of the CA file",
}


def parser(verb: str, purpose: str) -> Parser:
    """The arguments of the verb."""
    made = Parser(
        verb,
        purpose,
        examples=(
            "search-env index build --url http://127.0.0.1:9200 --corpus wiki.jsonl --index wiki",
            "search-env index build --url https://es:9200 --corpus wiki.jsonl --index wiki --api-key-env ES_KEY",
            "search-env index build --retriever opensearch --url http://os:9200 --corpus wiki.jsonl --index wiki",
        ),
        more='The corpus holds one {"id": …, "title": …, "text": …} a line. A build that was stopped goes on when it '
        "is run again.",
    )
    made.add_argument("action", choices=("build",), help="build: load a corpus and put it behind the alias")
    made.add_argument("--retriever", choices=_ENGINES, default=_ENGINES[0], help="the server's kind [%(default)s]")
    made.add_argument("--corpus", type=Path, required=True, metavar="FILE", help="documents, JSON lines")
    for name, text in _SETTINGS.items():
        flag = f"--{name.replace('_', '-')}"
        made.add_argument(flag, dest=name, required=name in ("url", "index"), metavar=flag[2:].upper(), help=text)
    made.add_argument("--shards", type=_count(1), default=1, help="primary shards, one for 10 to 50 GB [%(default)s]")
    made.add_argument("--replicas", type=_count(0), default=0, help="copies of each shard [%(default)s]")
    made.add_argument("--delete-old", action="store_true", help="delete what was behind the alias before")
    return made


def run(arguments: argparse.Namespace, settings: Sequence[str]) -> int:
    """Build the index."""
    no_settings(parser("index", ""), settings)
    from search_env.retrieval.elasticsearch_index import build_index

    built = build_index(
        _server(arguments),
        arguments.corpus,
        shards=arguments.shards,
        replicas=arguments.replicas,
        delete_old=arguments.delete_old,
        on_progress=lambda rows: write(f"{rows:,} documents"),
    )
    write(f"{arguments.index} -> {built.name}: {built.documents:,} documents")
    if built.replaced:
        write(f"{'deleted' if arguments.delete_old else 'no longer behind it'}: {', '.join(built.replaced)}")
    return 0


def _server(arguments: argparse.Namespace) -> ElasticsearchSettings:
    from pydantic import ValidationError

    from search_env.retrieval.elasticsearch import ElasticsearchSettings
    from search_env.retrieval.opensearch import OpenSearchSettings

    kind = {"elasticsearch": ElasticsearchSettings, "opensearch": OpenSearchSettings}[arguments.retriever]
    try:
        return kind(**{name: getattr(arguments, name) for name in _SETTINGS})
    except ValidationError as error:
        # Without the values: one of them may be a password.
        details = error.errors(include_input=False, include_url=False)
        problems = [
            " ".join([*(f"--{key}".replace("_", "-") for key in detail["loc"]), detail["msg"]]) for detail in details
        ]
        raise ConfigError("; ".join(problems)) from None


def _count(least: int) -> Callable[[str], int]:
    def count(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of {least} or more")
        return int(text)

    return count

"""``search-env index``: index a corpus once, for any number of runs: on disk, or on a search server."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from search_agents.cli.arguments import Parser, add_skip_malformed, no_settings, whole_number
from search_agents.cli.terminal import write
from search_env.datasets.corpora import SkippedRows
from search_env.errors import ConfigError, pydantic_message

if TYPE_CHECKING:
    from search_env.retrieval.elasticsearch import ElasticsearchSettings

__all__ = ["parser", "run"]

_ENGINES = ("bm25", "elasticsearch", "opensearch")
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
            "search-env index build --corpus wiki.jsonl --out wiki-index",
            "search-env index build --retriever elasticsearch --url http://127.0.0.1:9200 --corpus wiki.jsonl "
            "--index wiki",
            "search-env index build --retriever opensearch --url https://os:9200 --corpus wiki.jsonl --index wiki "
            "--api-key-env OS_KEY",
        ),
        more='The corpus holds one {"id": …, "title": …, "text": …} a line. It may also be wiki-18, which holds\n'
        '{"id": …, "contents": …}; the knowledge source of KILT, cut into windows of 100 words; psgs_w100.tsv; or the\n'
        "folder or tar of HotpotQA's abstracts. Each may be compressed with gzip or bzip2.\n"
        "Search the index with the retriever {name: bm25, index: wiki-index} or {name: elasticsearch, url: …,\n"
        "index: wiki}. A load into a server that was stopped goes on when it is run again.",
    )
    made.add_argument("action", choices=("build",), help="build: index a corpus")
    made.add_argument("--retriever", choices=_ENGINES, default=_ENGINES[0], help="what will search it [%(default)s]")
    made.add_argument("--corpus", type=Path, required=True, metavar="FILE", help="documents; see the formats below")
    add_skip_malformed(made)
    made.add_argument("--out", type=Path, metavar="FOLDER", help="folder for the index of bm25, new or empty")
    server = made.add_argument_group("search servers")
    for name, text in _SETTINGS.items():
        flag = f"--{name.replace('_', '-')}"
        server.add_argument(flag, dest=name, metavar=flag[2:].upper(), help=text)
    server.add_argument(
        "--shards", type=whole_number(1), default=1, help="primary shards, one for 10 to 50 GB [%(default)s]"
    )
    server.add_argument("--replicas", type=whole_number(0), default=0, help="copies of each shard [%(default)s]")
    server.add_argument("--delete-old", action="store_true", help="delete what was behind the alias before")
    return made


def run(arguments: argparse.Namespace, settings: Sequence[str]) -> int:
    """Build the index."""
    made = parser("index", "")
    no_settings(made, settings)
    wanted = ("out",) if arguments.retriever == "bm25" else ("url", "index")
    if missing := [f"--{name}" for name in wanted if getattr(arguments, name) is None]:
        made.error(f"--retriever {arguments.retriever} needs {' and '.join(missing)}")
    skipped = SkippedRows(arguments.skip_malformed)
    if arguments.retriever == "bm25":
        _build_folder(arguments, skipped)
    else:
        _load_server(arguments, skipped)
    if skipped.count:
        write(str(skipped))
    return 0


def _build_folder(arguments: argparse.Namespace, skipped: SkippedRows) -> None:
    from search_env.retrieval.bm25_folder import build_folder

    built = build_folder(arguments.corpus, arguments.out, skipped=skipped)
    write(f"{arguments.out}: {len(built):,} documents, {built.fingerprint}")


def _load_server(arguments: argparse.Namespace, skipped: SkippedRows) -> None:
    from search_env.retrieval.elasticsearch_index import build_index

    built = build_index(
        _server(arguments),
        arguments.corpus,
        shards=arguments.shards,
        replicas=arguments.replicas,
        delete_old=arguments.delete_old,
        skipped=skipped,
        on_progress=lambda rows: write(f"{rows:,} documents"),
    )
    write(f"{arguments.index} -> {built.name}: {built.documents:,} documents")
    if built.replaced:
        write(f"{'deleted' if arguments.delete_old else 'no longer behind it'}: {', '.join(built.replaced)}")


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
            " ".join([*(f"--{key}".replace("_", "-") for key in detail["loc"]), pydantic_message(detail["msg"])])
            for detail in details
        ]
        raise ConfigError("; ".join(problems)) from None

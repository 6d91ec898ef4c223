"""``search-env serve``: any retriever as a search server, by Search-R1's API and by ours."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from search_agents.cli.arguments import RETRIEVER_HELP, Parser, no_settings, retriever_spec
from search_agents.cli.terminal import write
from search_env.errors import ConfigError, pydantic_message
from search_env.render import visible

__all__ = ["parser", "run"]


def parser(verb: str, purpose: str) -> Parser:
    """The arguments of the verb."""
    made = Parser(
        verb,
        purpose,
        examples=(
            "search-env serve --corpus my.jsonl",
            "search-env serve --retriever '{name: bm25, index: my-index}' --port 8001 --top-k 5 --max-top-k 50",
            "search-env serve --corpus my.jsonl --host 0.0.0.0 --expose node7.cluster.lan 10.0.0.7",
        ),
        more='The corpus holds one {"id": …, "title": …, "text": …} a line. Clients of Search-R1, verl, SkyRL and '
        "slime\ntake the address http://127.0.0.1:8000/retrieve. There is no password.",
    )
    made.add_argument("--corpus", type=Path, metavar="FILE", help="your documents, JSON lines")
    made.add_argument(
        "--retriever",
        default="bm25",
        metavar="SPEC",
        help=f"{RETRIEVER_HELP} [%(default)s]",
    )
    made.add_argument("--host", default="127.0.0.1", help="address to listen on [%(default)s: this machine only]")
    made.add_argument("--port", type=int, default=8000, metavar="N", help="port, 0 for a free one [%(default)s]")
    made.add_argument(
        "--expose", nargs="+", default=[], metavar="NAME", help="names or addresses by which other machines may call"
    )
    made.add_argument(
        "--top-k", type=int, default=3, metavar="N", help="documents where a request does not say [%(default)s]"
    )
    made.add_argument(
        "--max-top-k", type=int, default=100, metavar="N", help="most that a request may ask for [%(default)s]"
    )
    return made


def run(arguments: argparse.Namespace, settings: Sequence[str]) -> int:
    """Serve until stopped."""
    no_settings(parser("serve", ""), settings)
    from pydantic import ValidationError

    from search_env.datasets import read_corpus
    from search_env.retrieval import get_retriever
    from search_env.serving import ServerSettings, allowed_hosts, listen, make_server

    try:
        limits = ServerSettings(default_top_k=arguments.top_k, max_top_k=arguments.max_top_k)
    except ValidationError as error:
        raise ConfigError(
            f"--top-k {arguments.top_k} --max-top-k {arguments.max_top_k}: {pydantic_message(error.errors()[0]['msg'])}"
        ) from None
    spec = retriever_spec(arguments.retriever)
    hosts = allowed_hosts(arguments.host, arguments.expose)
    # The port is taken before a large corpus is read: a mistake shows at once.
    with listen(arguments.host, arguments.port) as listener:
        retriever = get_retriever(spec, read_corpus(arguments.corpus) if arguments.corpus else ())
        server = make_server(retriever, limits, hosts)
        host, port = listener.getsockname()[:2]
        base = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        write(f"Serving {visible(retriever.fingerprint)} until Ctrl-C.")
        write(f"  Search-R1's API  POST {base}/retrieve\n  our own          POST {base}/v1/search")
        write(f"  and              GET  {base}/v1/info, /healthz, /metrics")
        server.run(sockets=[listener])
    return 0

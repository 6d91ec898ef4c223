"""Whether a retriever answers, and whether a search server is of a version that we speak with."""

from __future__ import annotations

import importlib.metadata as metadata
import time
from collections.abc import Iterator, Mapping
from typing import Any

from search_agents.diagnosis.finding import Finding, Verdict
from search_env.errors import ConfigError, MissingDependencyError, SearchEnvError
from search_env.retrieval import RetrieverSpec, get_retriever, retriever_settings
from search_env.types import Document

__all__ = ["retriever", "server_version"]

_DOCUMENT = Document(id="1", title="Oslo", text="Capital of Norway.")
_SERVERS = ("elasticsearch", "opensearch")
_START = {
    "http": "search-env serve",
    "elasticsearch": "docker compose -f configs/elasticsearch/compose.yaml up --wait",
}
_MAJORS = (8, 9)


def retriever(spec: RetrieverSpec) -> Iterator[Finding]:
    """Ask a retriever one query, and the search servers in its spec for their version.

    Args:
        spec: The retriever; an engine without documents of its own gets one.
    """
    specs = list(_inside(spec))
    name = specs[0]["name"]
    began = time.perf_counter()
    try:
        searched = get_retriever(spec, (_DOCUMENT,))
        searched.search(["capital of Norway"], 1)
        fingerprint = searched.fingerprint
    except MissingDependencyError as error:
        text, _, command = str(error).rpartition(": ")
        yield Finding("retriever", Verdict.PROBLEM, f"{name}: {text}", f"python -m {command}")
    except ConfigError as error:
        yield Finding("retriever", Verdict.PROBLEM, f"{name}: {error}", "search-env list retrievers")
    except SearchEnvError as error:
        start = next((_START[inner["name"]] for inner in specs if inner["name"] in _START), "search-env index --help")
        yield Finding("retriever", Verdict.PROBLEM, f"{name}: {error}", start)
    else:
        milliseconds = (time.perf_counter() - began) * 1000
        yield Finding("retriever", Verdict.OK, f"{name} answered in {milliseconds:,.0f} ms, {fingerprint}")
    for inner in specs:
        if inner["name"] in _SERVERS:
            yield from _server(inner)


def _inside(spec: RetrieverSpec) -> Iterator[dict[str, Any]]:
    """The spec, and those of what it wraps."""
    settings = {"name": spec} if isinstance(spec, str) else dict(spec)
    yield {"name": "?", **settings}
    for value in settings.values():
        for inner in value if isinstance(value, list | tuple) else (value,):
            if isinstance(inner, Mapping) and "name" in inner:
                yield from _inside(inner)


def _server(spec: Mapping[str, Any]) -> Iterator[Finding]:
    engine = spec["name"]
    try:
        settings: Any = retriever_settings(spec)
        with settings.connect(timeout_s=5) as client:
            number = str(client.info()["version"]["number"])
    except SearchEnvError:
        return  # told by the search
    except settings.failures():
        return
    if engine == "elasticsearch":
        yield server_version(number, metadata.version("elasticsearch"))
    else:
        yield Finding(engine, Verdict.OK, f"the server is {number}")


def server_version(server: str, client: str) -> Finding:
    """How the versions of an Elasticsearch server and of its client in Python fit together.

    Our own requests are answered by either major of the server with either of the client; other
    programs that use the client find that version 9 is refused by a server of version 8.

    Args:
        server: What the server says it is, for example ``8.19.1``.
        client: Version of the package.
    """
    majors = int(server.split(".")[0]), int(client.split(".")[0])
    told = f"server {server}, client {client}"
    if majors[0] not in _MAJORS:
        text = f"{told}: servers of version {_MAJORS[0]} and {_MAJORS[1]} are spoken with"
        return Finding("elasticsearch", Verdict.PROBLEM, text, _START["elasticsearch"])
    if majors[0] != majors[1]:
        text = f"{told}: search-env works with both; other programs need a client of the server's major"
        return Finding(
            "elasticsearch", Verdict.NOTE, text, f"python -m pip install 'elasticsearch[async]=={majors[0]}.*'"
        )
    return Finding("elasticsearch", Verdict.OK, told)

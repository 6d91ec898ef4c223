"""``search-env serve`` in a process of its own, under one load after the other."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from search_env.datasets import load
from search_env.datasets.jsonl import write_corpus
from search_env.errors import RetrieverUnavailable

__all__ = ["Phase", "under_load"]

_SCRIPT = "import sys; from search_agents.cli import main; sys.exit(main())"


class Phase(NamedTuple):
    """Some seconds of one load."""

    name: str
    connections: int
    batch: int
    """Queries of a request."""


def under_load(
    folder: Path, phases: Sequence[Phase], put: Callable[[str, Phase, Sequence[str]], dict[str, Any]]
) -> dict[str, Any]:
    """Serve FictionalWiki and put every load on the server.

    Args:
        folder: Where the corpus is written for it.
        phases: The loads, one after the other.
        put: Puts one load on the server at an address with these questions, and says what came of it.

    Returns:
        A row for each phase, and the server's resident memory before and after.

    Raises:
        AssertionError: If the server crashed, or does not answer when a load is gone.
    """
    dataset = load("fictional-wiki", split="test")
    corpus = folder / "corpus.jsonl"
    write_corpus(corpus, dataset.documents)
    questions = [question.text for question in dataset.questions]
    rows = []
    with _served_apart(corpus) as (address, process):
        before = _resident_mib(process)
        for phase in phases:
            rows.append({**phase._asdict(), **put(address, phase, questions)})
            assert httpx.get(f"{address}/healthz", timeout=30).json() == {"status": "ok"}
            _drain(address, questions[0])
        after = _resident_mib(process)
    return {"phases": rows, "memory_mib": {"before": before, "after": after}}


@contextlib.contextmanager
def _served_apart(corpus: Path) -> Iterator[tuple[str, int]]:
    """Address and process id of ``search-env serve`` over a corpus.

    Raises:
        RetrieverUnavailable: If it does not start.
    """
    command = [sys.executable, "-c", _SCRIPT, "serve", "--corpus", str(corpus), "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        try:
            assert server.stdout is not None
            told = [server.stdout.readline() for _ in range(2)]
            if "POST" not in told[-1]:
                raise RetrieverUnavailable("the server did not start; its message is above")
            address = told[-1].split()[-1].removesuffix("/retrieve")
            _await(address)
            yield address, server.pid
            assert server.poll() is None, "the server crashed"
        finally:
            server.terminate()


def _drain(address: str, question: str) -> None:
    """Wait until all is done that the server took: searches are answered in turn, so one asked now comes after it."""
    for _ in range(300):
        answer = httpx.post(f"{address}/v1/search", json={"queries": [question]}, timeout=60)
        if answer.status_code == 200:
            return
        assert answer.status_code == 503, answer.text
        time.sleep(0.1)
    raise AssertionError("it still refuses searches, half a minute after the load is gone")


def _await(address: str) -> None:
    for _ in range(600):
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{address}/healthz", timeout=5).status_code == 200:
                return
        time.sleep(0.1)
    raise RetrieverUnavailable(f"the server at {address} does not answer")


def _resident_mib(process: int) -> float:
    """Memory of a process."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)

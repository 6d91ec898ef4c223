"""``search-env serve`` from light load to more than it can hold, and back.

The server is a process of its own. Each phase is a closed loop: every worker asks again as
soon as it is answered, or refused. More queries than the server lets wait are refused at
once with 503 and ``Retry-After``, so those that it took stay as fast as its queue is long.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from benchmarks.scaling.load import Load, Workload, drive
from search_env.datasets import load
from search_env.datasets.jsonl import write_corpus
from search_env.errors import RetrieverUnavailable
from search_env.retrieval.http import HTTPRetriever, HTTPSettings
from search_env.types import Hit

__all__ = ["PHASES", "Phase", "Refused", "overload", "resident_mib", "served_apart"]


class Phase(NamedTuple):
    """Some seconds of one load."""

    name: str
    workers: int
    batch: int
    """Queries of a request."""


PHASES = (
    Phase("light", 1, 64),
    Phase("saturation", 8, 128),
    Phase("overload", 48, 256),
    Phase("light again", 1, 64),
)
"""At overload 12,288 queries are asked at once, and the server lets 4,096 wait."""

_SCRIPT = "import sys; from search_agents.cli import main; sys.exit(main())"


class Refused(Exception):
    """The server said that it has no room."""


class _Asking:
    """The client, telling a refusal for want of room from every other failure."""

    def __init__(self, client: HTTPRetriever) -> None:
        self._client = client
        self.failures: list[str] = []
        """What else went wrong, in the words of the error."""

    @property
    def fingerprint(self) -> str:
        return self._client.fingerprint

    def search(self, queries: Sequence[str], top_k: int) -> list[tuple[Hit, ...]]:
        try:
            return self._client.search(queries, top_k)
        except Exception as error:
            if isinstance(error, RetrieverUnavailable) and "status 503" in str(error):
                raise Refused from error
            self.failures.append(f"{type(error).__name__}: {error}")
            raise


@contextlib.contextmanager
def served_apart(corpus: Path) -> Iterator[tuple[str, int]]:
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


def overload(folder: Path, *, seconds: float = 5.0, phases: Sequence[Phase] = PHASES) -> dict[str, Any]:
    """Put every load on the server, one after the other.

    Args:
        folder: Where the corpus is written for it.
        seconds: How long each load lasts.
        phases: The loads.

    Returns:
        A row for each phase, and the server's resident memory before and after.

    Raises:
        AssertionError: If the server crashed, or does not answer when the load is gone.
    """
    dataset = load("fictional-wiki", split="test")
    corpus = folder / "corpus.jsonl"
    write_corpus(corpus, dataset.documents)
    questions = [question.text for question in dataset.questions]
    rows = []
    with served_apart(corpus) as (address, process):
        before = resident_mib(process)
        for phase in phases:
            client = HTTPRetriever(HTTPSettings(url=address, batch_size=phase.batch))
            # Equal queries of a request are sent once: few are, so that it is as large as it says.
            asked = [f"{text} {number}" for number in range(20) for text in questions]
            workload = Workload(questions=asked, zipf=0, batch=phase.batch)
            asking = _Asking(client)
            found = drive(asking, workload, workers=phase.workers, seconds=seconds)
            rows.append(_row(phase, found, asking.failures))
            client.close()
            assert httpx.get(f"{address}/healthz", timeout=30).json() == {"status": "ok"}
        after = resident_mib(process)
    return {"phases": rows, "memory_mib": {"before": before, "after": after}}


def _row(phase: Phase, found: Load, failures: Sequence[str]) -> dict[str, Any]:
    refused = found.errors.get(Refused.__name__, 0)
    # Each run has a port of its own.
    told = Counter(re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:PORT", failure) for failure in failures)
    return {
        **phase._asdict(),
        "requests": found.searches,
        "answered": found.searches - sum(found.errors.values()),
        "refused_503": refused,
        "other_failures": sum(found.errors.values()) - refused,
        "errors": dict(told),
        "queries_per_second": round(found.queries_per_second, 1),
        "p50_ms": round(found.percentile(50), 1),
        "p95_ms": round(found.percentile(95), 1),
    }


def _await(address: str) -> None:
    for _ in range(600):
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{address}/healthz", timeout=5).status_code == 200:
                return
        time.sleep(0.1)
    raise RetrieverUnavailable(f"the server at {address} does not answer")


def resident_mib(process: int) -> float:
    """Memory of a process."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1)

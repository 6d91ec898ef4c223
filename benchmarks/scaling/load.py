"""A load generator for any retriever: questions at a fixed rate, or as fast as they are answered.

In a *closed loop* each worker searches again as soon as it has its answer, as the steps of
a training do. In an *open loop* searches arrive at random (Poisson) at a given rate,
whether or not the engine keeps up, as the users of a service do. There the latency counts
from the moment a search was due, so what a slow answer makes others wait is not left out
("coordinated omission").

Workers are threads of one process: they wait for a server side by side, but an engine
embedded in the process shares the interpreter with them.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from search_env.errors import RetrieverUnavailable
from search_env.retrieval.base import Retriever
from search_env.retrieval.http import HTTPRetriever, HTTPSettings
from search_env.serving import ServerSettings, listen, make_server

__all__ = ["NOT_BEGUN", "Load", "Workload", "drive", "served"]

NOT_BEGUN = "NotBegun"
"""The error of a search that was due and that no worker was free for until the run was given up."""

_PATIENCE = 2.0  # An open loop goes on for up to so many times its length, to answer what is due.


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What is asked: questions of which few are frequent and most are rare (Zipf's law)."""

    questions: Sequence[str]
    """The different questions."""
    zipf: float = 1.0
    """The question of popularity rank r is asked in proportion to ``r ** -zipf``; 0 asks all alike."""
    batch: int = 1
    """Queries of one search, as the running episodes of a vector step send them together."""
    top_k: int = 5
    """Documents for each query."""
    seed: int = 0
    """Of the draws."""

    def batches(self) -> Iterator[list[str]]:
        """The queries of one search after the other, without end."""
        rng = np.random.default_rng(self.seed)
        by_rank = rng.permutation(len(self.questions))
        shares = np.arange(1, len(by_rank) + 1) ** -self.zipf
        cumulative = np.cumsum(shares) / shares.sum()
        while True:
            ranks = np.searchsorted(cumulative, rng.random(self.batch)).clip(max=len(by_rank) - 1)
            yield [self.questions[row] for row in by_rank[ranks]]


@dataclass(frozen=True, kw_only=True)
class Load:
    """What a run measured."""

    workers: int
    batch: int
    offered: float | None
    """Queries a second that arrived; None for a closed loop."""
    searches: int
    queries_per_second: float
    """Queries that were answered, over the time it took."""
    latencies: Sequence[float] = field(repr=False)
    """Seconds, sorted: of each search that was answered, and the wait so far of each that was not begun."""
    errors: dict[str, int]
    """How many searches failed, by the name of the error."""

    def percentile(self, percent: float) -> float:
        """The latency in milliseconds that so many percent of the searches do not exceed; NaN if none was answered."""
        return float(np.percentile(self.latencies, percent)) * 1000 if self.latencies else float("nan")


def drive(retriever: Retriever, workload: Workload, *, workers: int, seconds: float, rate: float | None = None) -> Load:
    """Search for a while with several threads.

    Args:
        retriever: What is measured; it must bear being shared by threads.
        workload: What is asked.
        workers: Threads, the most searches at the same time.
        seconds: How long searches begin, or arrive.
        rate: Searches that arrive in a second (open loop); None begins one whenever another ends (closed loop).
    """
    arrivals = enumerate(workload.batches()) if rate is None else _poisson(workload, rate, seconds)
    crew = _Crew(retriever, workload.top_k, arrivals, seconds, closed=rate is None)
    threads = [threading.Thread(target=crew.work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    answered = len(crew.latencies) - crew.errors[NOT_BEGUN]
    return Load(
        workers=workers,
        batch=workload.batch,
        offered=None if rate is None else rate * workload.batch,
        searches=answered + crew.errors.total(),
        queries_per_second=answered * workload.batch / max(crew.ended, seconds),
        latencies=sorted(crew.latencies),
        errors=dict(crew.errors),
    )


@contextlib.contextmanager
def served(retriever: Retriever) -> Iterator[HTTPRetriever]:
    """The same retriever behind ``search-env serve``, on a free port of this machine."""
    server = make_server(retriever, ServerSettings())
    listener = listen("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not server.started:
            if not thread.is_alive():
                raise RetrieverUnavailable("the server did not start")
            time.sleep(0.01)
        client = HTTPRetriever(HTTPSettings(url=f"http://127.0.0.1:{listener.getsockname()[1]}"))
        yield client
        client.close()
    finally:
        server.should_exit = True
        thread.join()


def _poisson(workload: Workload, rate: float, seconds: float) -> Iterator[tuple[float, list[str]]]:
    rng = np.random.default_rng([workload.seed, 1])
    due = 0.0
    for batch in workload.batches():
        due += rng.exponential(1 / rate)
        if due >= seconds:
            return
        yield due, batch


class _Crew:
    """What the workers of a run share."""

    def __init__(
        self,
        retriever: Retriever,
        top_k: int,
        arrivals: Iterator[tuple[float, list[str]]],
        seconds: float,
        *,
        closed: bool,
    ) -> None:
        self.latencies: list[float] = []
        self.errors: Counter[str] = Counter()
        self.ended = 0.0
        self._retriever, self._top_k, self._arrivals, self._closed = retriever, top_k, arrivals, closed
        self._seconds = seconds
        self._lock = threading.Lock()
        self._started = time.perf_counter()

    def work(self) -> None:
        while (arrival := self._next()) is not None:
            due, queries = arrival
            time.sleep(max(0.0, due - self._now()))
            error = None
            try:
                self._retriever.search(queries, self._top_k)
            except Exception as raised:  # Whatever it is, it is what is measured.
                error = type(raised).__name__
            self._note(self._now(), due, error)

    def _next(self) -> tuple[float, list[str]] | None:
        with self._lock:
            for due, queries in self._arrivals:
                now = self._now()
                if self._closed:
                    return (now, queries) if now < self._seconds else None
                if now < self._seconds * _PATIENCE:
                    return due, queries
                # The wait so far is less than it would have been. Without it, an overloaded engine would seem fast.
                self.errors[NOT_BEGUN] += 1
                self.latencies.append(now - due)
            return None

    def _note(self, now: float, due: float, error: str | None) -> None:
        with self._lock:
            self.ended = max(self.ended, now)
            if error is None:
                self.latencies.append(now - due)
            else:
                self.errors[error] += 1

    def _now(self) -> float:
        return time.perf_counter() - self._started

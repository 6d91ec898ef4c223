"""Requests that arrive at the same time become one search.

An engine runs a batch of queries faster than the queries one by one. The first request
waits a few milliseconds for others; while a search runs, the next batch gathers. Requests
that ask for another number of documents are another batch, so that each gets exactly
what the retriever would have given it alone.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from search_env.errors import RetrieverUnavailable
from search_env.types import Hit

__all__ = ["Batcher", "OverloadedError"]

Search = Callable[[Sequence[str], int], list[tuple[Hit, ...]]]


class OverloadedError(Exception):
    """More queries are waiting than the server has room for."""


@dataclass(frozen=True, slots=True, eq=False)
class _Request:
    queries: Sequence[str]
    top_k: int
    arrived: float
    found: asyncio.Future[list[tuple[Hit, ...]]]


class Batcher:
    """Gathers requests and runs them through a blocking search, one batch at a time.

    Belongs to one event loop, in which `run` must be running.

    Args:
        search: What runs a batch; it is called in a thread of its own.
        size: A batch takes no further request beyond this many queries.
        wait: Seconds that the first request of a batch waits for others.
        room: The most queries that may wait.
    """

    def __init__(self, search: Search, *, size: int, wait: float, room: int) -> None:
        self._search = search
        self._size, self._wait, self._room = size, wait, room
        self._requests: list[_Request] = []
        self._arrival = asyncio.Event()
        self._closed = False

    @property
    def waiting(self) -> int:
        """How many queries wait for a search; those of the running one do not count."""
        return sum(len(request.queries) for request in self._requests)

    async def search(self, queries: Sequence[str], top_k: int) -> list[tuple[Hit, ...]]:
        """Run the queries of one request, together with others.

        Raises:
            OverloadedError: If there is no room for them.
            RetrieverUnavailable: If the search failed, or the server is going down.
        """
        if self._closed:
            raise RetrieverUnavailable("the server is going down", transient=True)
        if self.waiting + len(queries) > self._room:
            raise OverloadedError
        loop = asyncio.get_running_loop()
        request = _Request(queries, top_k, loop.time(), loop.create_future())
        self._requests.append(request)
        self._arrival.set()
        return await request.found

    async def run(self) -> None:
        """Run batches until cancelled; requests that still wait then fail."""
        executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="search")
        batch: list[_Request] = []
        try:
            while True:
                await self._gather()
                batch = self._take()
                await self._run_batch(batch, executor)
        finally:
            self._closed = True
            for request in (*batch, *self._requests):
                if not request.found.done():
                    request.found.set_exception(RetrieverUnavailable("the server is going down", transient=True))
            executor.shutdown(wait=False, cancel_futures=True)

    async def _gather(self) -> None:
        """Return when there is a batch to run."""
        await self._arrival.wait()
        if self.waiting < self._size:
            due = self._requests[0].arrived + self._wait
            await asyncio.sleep(max(0.0, due - asyncio.get_running_loop().time()))

    def _take(self) -> list[_Request]:
        """Take the requests of the next batch out of the queue, the oldest first."""
        batch: list[_Request] = []
        others: list[_Request] = []
        queries, top_k = 0, self._requests[0].top_k
        for request in self._requests:
            # The first is taken whatever its size.
            if not batch or (request.top_k == top_k and queries + len(request.queries) <= self._size):
                batch.append(request)
                queries += len(request.queries)
            else:
                others.append(request)
        self._requests = others
        if not others:
            self._arrival.clear()
        return batch

    async def _run_batch(self, batch: Sequence[_Request], executor: ThreadPoolExecutor) -> None:
        queries = [query for request in batch for query in request.queries]
        loop = asyncio.get_running_loop()
        try:
            found = await loop.run_in_executor(executor, self._search, queries, batch[0].top_k)
            if len(found) != len(queries):
                raise RetrieverUnavailable(f"the retriever gave {len(found)} results for {len(queries)} queries")
        except Exception as error:  # whatever went wrong belongs to those who asked, and the next batch may go well
            for request in batch:
                if not request.found.done():
                    request.found.set_exception(error)
            return
        start = 0
        for request in batch:
            end = start + len(request.queries)
            if not request.found.done():
                request.found.set_result(found[start:end])
            start = end

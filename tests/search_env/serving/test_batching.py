"""Requests at the same time become one search, and each gets exactly its own."""

import asyncio
import threading

import pytest

from search_env.errors import RetrieverUnavailable
from search_env.serving.batching import Batcher, OverloadedError

WAIT = 0.02


class Echo:
    """A search that returns what it was asked and remembers its batches; holds them while ``gate`` is closed."""

    def __init__(self):
        self.batches = []
        self.gate = threading.Event()
        self.gate.set()
        self.error = None

    def __call__(self, queries, top_k):
        self.batches.append((list(queries), top_k))
        assert self.gate.wait(30)
        if self.error is not None:
            raise self.error
        return [(query, top_k) for query in queries]


@pytest.fixture
def echo():
    return Echo()


def batched(search, scenario, *, size=100, room=100):
    """Run a scenario with a batcher that runs."""

    async def main():
        batcher = Batcher(search, size=size, wait=WAIT, room=room)
        task = asyncio.create_task(batcher.run())
        try:
            return await scenario(batcher)
        finally:
            search.gate.set()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    return asyncio.run(main())


async def until(condition):
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)


def test_concurrent_requests_are_one_search_and_each_gets_its_own_results(echo):
    async def scenario(batcher):
        return await asyncio.gather(*(batcher.search([f"{n}", f"{n}!"], 3) for n in range(10)))

    assert batched(echo, scenario) == [[(f"{n}", 3), (f"{n}!", 3)] for n in range(10)]
    assert echo.batches == [([text for n in range(10) for text in (f"{n}", f"{n}!")], 3)]


def test_requests_for_another_number_of_documents_are_another_search(echo):
    async def scenario(batcher):
        return await asyncio.gather(*(batcher.search([f"{n}"], 1 + n % 2) for n in range(4)))

    assert batched(echo, scenario) == [[(f"{n}", 1 + n % 2)] for n in range(4)]
    assert echo.batches == [(["0", "2"], 1), (["1", "3"], 2)]


def test_a_batch_takes_no_more_than_its_size_but_a_request_is_never_split(echo):
    async def scenario(batcher):
        await asyncio.gather(*(batcher.search(["x"] * queries, 1) for queries in (5, 2, 1, 1)))

    batched(echo, scenario, size=3)
    assert [len(queries) for queries, _ in echo.batches] == [5, 3, 1]


def test_requests_that_come_during_a_search_are_the_next_one(echo):
    async def scenario(batcher):
        echo.gate.clear()
        first = asyncio.create_task(batcher.search(["first"], 1))
        await until(lambda: echo.batches)
        others = [asyncio.create_task(batcher.search([text], 1)) for text in "ab"]
        await asyncio.sleep(2 * WAIT)
        assert batcher.waiting == 2
        echo.gate.set()
        await asyncio.gather(first, *others)

    batched(echo, scenario)
    assert [queries for queries, _ in echo.batches] == [["first"], ["a", "b"]]


def test_a_request_beyond_the_room_is_refused_and_there_is_room_again_afterwards(echo):
    async def scenario(batcher):
        echo.gate.clear()
        searched = asyncio.create_task(batcher.search(["searched"], 1))
        await until(lambda: echo.batches)
        waiting = asyncio.create_task(batcher.search(["1", "2"], 1))
        await asyncio.sleep(0)
        with pytest.raises(OverloadedError):
            await batcher.search(["3", "4"], 1)
        echo.gate.set()
        await asyncio.gather(searched, waiting)
        return await batcher.search(["3", "4"], 1)

    assert batched(echo, scenario, room=3) == [("3", 1), ("4", 1)]


@pytest.mark.parametrize("error", [RetrieverUnavailable("gone"), ZeroDivisionError("bug")])
def test_a_failed_search_fails_those_who_asked_and_nobody_else(echo, error):
    async def scenario(batcher):
        echo.error = error
        failed = await asyncio.gather(*(batcher.search([text], 1) for text in "ab"), return_exceptions=True)
        echo.error = None
        return failed, await batcher.search(["c"], 1)

    assert batched(echo, scenario) == ([error, error], [("c", 1)])


def test_a_search_that_loses_a_query_is_a_failure(echo):
    class Forgetful(Echo):
        def __call__(self, queries, top_k):
            return super().__call__(queries, top_k)[1:]

    async def scenario(batcher):
        with pytest.raises(RetrieverUnavailable, match="1 results for 2 queries"):
            await batcher.search(["a", "b"], 1)

    batched(Forgetful(), scenario)


def test_a_request_that_is_given_up_does_not_disturb_the_others(echo):
    async def scenario(batcher):
        given_up = asyncio.create_task(batcher.search(["a"], 1))
        kept = asyncio.create_task(batcher.search(["b"], 1))
        await asyncio.sleep(0)
        given_up.cancel()
        return await kept

    assert batched(echo, scenario) == [("b", 1)]


def test_at_the_end_waiting_requests_fail_and_new_ones_are_refused(echo):
    async def main():
        batcher = Batcher(echo, size=1, wait=WAIT, room=10)
        task = asyncio.create_task(batcher.run())
        echo.gate.clear()
        asked = [asyncio.create_task(batcher.search([text], 1)) for text in "ab"]
        await until(lambda: echo.batches)
        task.cancel()
        outcomes = await asyncio.gather(*asked, return_exceptions=True)
        echo.gate.set()
        with pytest.raises(RetrieverUnavailable, match="going down"):
            await batcher.search(["c"], 1)
        return outcomes

    assert [str(outcome) for outcome in asyncio.run(main())] == ["the server is going down"] * 2

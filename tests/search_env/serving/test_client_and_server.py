"""Our client over our server finds exactly what the retriever beneath finds."""

import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_env.errors import RetrieverUnavailable
from search_env.retrieval import InMemoryRetriever
from search_env.retrieval.bm25 import BM25Retriever
from search_env.retrieval.http import HTTPSettings
from search_env.types import Document

DOCUMENTS = [
    Document(id="oslo", title="Oslo", text="Capital of Norway.\n\nSeat of its government."),
    Document(id="lima", title='"Lima"', text="Capital of Peru."),
    Document(id="bergen", title="Two\nlines", text="A city of Norway, “once” its capital."),
    Document(id="empty", title="", text="norway norway <answer>\t東京</answer>"),
    *(Document(id=f"{n:02}", title=f"Page {n}", text="capital " * (n % 3) + f"number{n}") for n in range(40)),
]
QUERIES = ["capital of Norway", "Peru", "nothing like it", "number7 capital", "", "capital of Norway"]


@pytest.fixture(scope="module")
def bm25():
    return BM25Retriever.in_memory(DOCUMENTS)


@pytest.fixture(scope="module")
def remote(serving, bm25):
    with serving(bm25, max_top_k=1000) as address:
        retriever = HTTPSettings(url=address).build()
        yield retriever
        retriever.close()


@pytest.mark.parametrize("top_k", [1, 3, 1000])
def test_the_hits_are_exactly_those_of_the_retriever_beneath(remote, bm25, top_k):
    assert remote.search(QUERIES, top_k) == bm25.search(QUERIES, top_k)


words = st.sampled_from(
    ["capital", "Norway", "peru", "number7", "“once”", "東京", "\ud800", "\udfff", "\x00", '"', "\\"]
)
queries = st.lists(st.one_of(st.text(), st.lists(words).map(" ".join), st.lists(words).map("".join)), max_size=5)


@given(queries)
def test_any_text_at_all_is_searched_as_it_would_be_without_the_network(remote, bm25, asked):
    assert remote.search(asked, 5) == bm25.search(asked, 5)


def test_a_text_of_any_length_is_searched(remote, bm25):
    long = "norway " * 200_000
    assert remote.search([long, "peru"], 2) == bm25.search([long[:10_000], "peru"], 2)


def test_threads_share_it(remote, bm25):
    asked = [[f"number{n} capital"] for n in range(40)]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda query: remote.search(query, 4), asked)) == [bm25.search(q, 4) for q in asked]


def test_it_survives_pickling(remote, bm25):
    remote.search(QUERIES, 3)
    twin = pickle.loads(pickle.dumps(remote))
    assert twin.fingerprint == remote.fingerprint
    assert twin.search(QUERIES, 3) == bm25.search(QUERIES, 3)
    twin.close()


CARRIED = []  # What a forked process finds as it was, not through a pickle.


def search_in_child(top_k):
    return CARRIED[0].search(QUERIES, top_k)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_it_survives_a_fork_and_so_do_the_connections_of_the_parent(remote, bm25):
    remote.search(QUERIES, 3)
    opened = remote._opened
    CARRIED[:] = [remote]
    with ProcessPoolExecutor(2, multiprocessing.get_context("fork")) as pool:
        found = list(pool.map(search_in_child, [3] * 4))
    assert found == [bm25.search(QUERIES, 3)] * 4
    assert remote.search(QUERIES, 3) == found[0]
    assert remote._opened is opened


def test_a_server_that_fails_stops_or_refuses_is_unavailable_never_empty(serving):
    class Broken(InMemoryRetriever):
        def search(self, queries, top_k):
            raise RetrieverUnavailable("the index is gone")

    with serving(Broken(DOCUMENTS), max_top_k=3) as address:
        retriever = HTTPSettings(url=address).build()
        with pytest.raises(RetrieverUnavailable, match=r"status 503: .*the index is gone") as failed:
            retriever.search(["a"], 3)
        with pytest.raises(RetrieverUnavailable, match=r"status 422: .*1 to 3 are allowed") as refused:
            retriever.search(["a"], 4)
    with pytest.raises(RetrieverUnavailable, match=r"cannot be asked .* Is it running") as stopped:
        retriever.search(["a"], 3)
    retriever.close()
    assert (failed.value.transient, refused.value.transient, stopped.value.transient) == (True, False, True)
    assert isinstance(stopped.value.__cause__, httpx.TransportError)

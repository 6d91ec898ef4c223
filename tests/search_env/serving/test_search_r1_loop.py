"""Search-R1's generation loop with our server as its retriever reads exactly what our environment says.

The loop is written here from its description (commit a14dc3a): the action is the first pair of search or answer tags,
a search posts its query, of each document the first line is the title and the rest the text.
"""

from __future__ import annotations

import re

import httpx
import pytest

from search_env import SearchQAEnv, datasets
from search_env.dialects import DIALECTS
from search_env.errors import RetrieverUnavailable
from search_env.retrieval.bm25 import BM25Retriever

DATA = datasets.load("fictional-wiki", split="test")


@pytest.fixture(scope="module")
def retriever():
    return BM25Retriever.in_memory(DATA.documents)


def loop_action(response: str) -> tuple[str, str] | None:
    found = re.search(r"<(search|answer)>(.*?)</\1>", response, re.DOTALL)
    return (found[1], found[2].strip()) if found else None


def loop_observation(address: str, query: str, top_k: int) -> str:
    request = {"queries": [query], "topk": top_k, "return_scores": True}
    (found,) = httpx.post(f"{address}/retrieve", json=request).json()["result"]
    shown = ""
    for rank, item in enumerate(found, start=1):
        title, *text = item["document"]["contents"].split("\n")
        shown += "Doc {}(Title: {}) {}\n".format(rank, title, "\n".join(text))
    return f"\n\n<information>{shown.strip()}</information>\n\n"


@pytest.mark.parametrize("top_k", [1, 3, 5])
def test_the_loop_reads_what_the_environment_says(serving, retriever, top_k):
    env = SearchQAEnv(DATA, retriever=retriever, dialect="search-r1", top_k=top_k)
    with serving(retriever) as address:
        for index in range(0, len(DATA.questions), 40):
            question = DATA.questions[index]
            segment = f"<think> I need it. </think> <search> {question.text} </search>"
            kind, query = loop_action(segment)
            env.reset(options={"question": question.id})
            observation, *_ = env.step(segment)
            assert kind == "search"
            assert observation == loop_observation(address, query, top_k)
            assert observation.count("Doc ") >= top_k


def test_the_loop_reads_the_actions_that_the_dialect_reads():
    for segment in (
        "<think> a </think> <search> Oslo mayor </search>",
        "<think> a </think>\n<answer> Marianne Borgen </answer>",
        "<search>x</search>",
        "no tag at all",
        "<search> open",
    ):
        action = DIALECTS["search-r1"].parse(segment)
        found = loop_action(segment)
        assert (action.kind.value, action.text) == (found or ("malformed", ""))


def test_a_failed_search_stops_the_loop_and_is_no_observation(serving):
    class Broken:
        fingerprint = "broken"

        def search(self, queries, top_k):
            raise RetrieverUnavailable("the index is gone")

    with serving(Broken()) as address, pytest.raises(KeyError, match="result"):
        loop_observation(address, "Oslo", 3)

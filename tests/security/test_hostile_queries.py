"""Whatever a model asks for, every engine that runs here gives a defined result in bounded time."""

from __future__ import annotations

import time
from importlib.util import find_spec

import pytest

from search_env.retrieval import get_retriever
from search_env.types import Document

DOCUMENTS = tuple(
    Document(id=str(number), title=country, text=f"{country} is a country. Its capital is {city}.")
    for number, (country, city) in enumerate({"Norway": "Oslo", "Peru": "Lima", "Kenya": "Nairobi"}.items())
)
NOTHING = {
    "empty": "",
    "blank": " \t\n",
    "stop words": "the of and is a",
    "unknown words": "zebra quagga",
    "punctuation": "*?/~^:()[]{}\"'\\",
    "controls": "\0\x01\x1b[31m\x7f",
    "half a pair": "\ud800\udfff",
    "a huge word": "x" * 10**6,
}
ALL = {
    "one word": "capital",
    "beside controls": "\0capital\x1b",
    "beside half a pair": "\ud800 capital \udfff",
    "a megabyte": "capital " * 130_000,
}
WITH_NUMBA = pytest.mark.skipif(find_spec("numba") is None, reason="numba is not installed")
SPECS = [
    "bm25",
    pytest.param("bm25-memory", marks=WITH_NUMBA),
    {"name": "hybrid", "of": ["bm25", {"name": "bm25"}]},
    {"name": "resilient", "of": "bm25"},
    {"name": "cached", "of": "bm25"},
    {"name": "recorded", "of": "bm25"},
]


@pytest.fixture(params=SPECS, ids=lambda spec: spec if isinstance(spec, str) else spec["name"])
def retriever(request, tmp_path):
    spec = request.param
    if isinstance(spec, dict) and spec["name"] == "recorded":
        spec = {**spec, "cassette": str(tmp_path / "searches.jsonl")}
    return get_retriever(spec, DOCUMENTS)


def test_a_degenerate_query_finds_nothing_and_none_finds_a_document_without_a_score(retriever):
    """Risk 6: empty, stop-word, unknown, oversized and broken queries, and more documents than there are."""
    started = time.process_time()
    queries = [*NOTHING.values(), *ALL.values()]
    for top_k in (1, 1000):
        found = dict(zip([*NOTHING, *ALL], retriever.search(queries, top_k), strict=True))
        for name, hits in found.items():
            expected = 0 if name in NOTHING else min(top_k, len(DOCUMENTS))
            assert len(hits) == expected, name
            assert all(hit.score > 0 for hit in hits), name
    assert time.process_time() - started < 20


def test_a_query_that_is_no_good_does_not_change_its_neighbours(retriever):
    """Risk 6: one query of a batch is hostile, the others are not."""
    alone = retriever.search(["lima"], 3)
    assert retriever.search([*NOTHING.values(), "lima"], 3)[-1:] == alone

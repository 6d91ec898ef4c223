import copy
import json
import logging
import pickle
import sqlite3
import threading

import pytest
from pydantic import ValidationError

from search_env.errors import ConfigError, RetrieverUnavailable
from search_env.retrieval import get_retriever
from search_env.retrieval.base import InMemoryRetriever, Retriever
from search_env.retrieval.cache import CachedRetriever, CachedSettings
from search_env.types import Document

DOCUMENTS = [
    Document(id="d1", title="Norway", text="Its capital is Oslo."),
    Document(id="d2", title="Peru", text="Its capital is Lima. \ud800"),
]
QUERIES = ["capital", "Lima", "nothing", "\ud800"]


class Counting(InMemoryRetriever):
    """Counts what it is asked; fails while ``broken``."""

    broken = False

    def __init__(self, fingerprint="in-memory"):
        super().__init__(DOCUMENTS)
        self.fingerprint = fingerprint
        self.batches = []

    def search(self, queries, top_k):
        self.batches.append((list(queries), top_k))
        if self.broken:
            raise RetrieverUnavailable("down", transient=True)
        return super().search(queries, top_k)


@pytest.fixture
def answers():
    return InMemoryRetriever(DOCUMENTS).search(QUERIES, 2)


def cached(inner, now=lambda: 1000.0, **settings):
    return CachedRetriever(inner, CachedSettings(of="x", **settings), now)


@pytest.fixture(params=["memory", "disk", "both"])
def where(request, tmp_path):
    """Settings of a cache in memory, on disk, and in both."""
    path = {} if request.param == "memory" else {"path": tmp_path / "made" / "cache.sqlite"}
    return path | ({"max_entries": 0} if request.param == "disk" else {})


def test_a_search_is_run_once_whatever_batch_it_comes_in(where, answers):
    inner = Counting()
    retriever = cached(inner, **where)
    assert retriever.search(["Lima", "capital", "Lima"], 2) == [answers[1], answers[0], answers[1]]
    assert retriever.search(QUERIES, 2) == answers
    assert retriever.search(QUERIES, 2) == answers
    assert inner.batches == [(["Lima", "capital"], 2), (["nothing", "\ud800"], 2)]


def test_another_number_of_documents_is_another_search(where):
    inner = Counting()
    retriever = cached(inner, **where)
    assert [len(retriever.search(["capital"], top_k)[0]) for top_k in (1, 2, 1)] == [1, 2, 1]
    assert inner.batches == [(["capital"], 1), (["capital"], 2)]


def test_a_search_expires(where):
    inner, time = Counting(), [0.0]
    retriever = cached(inner, now=lambda: time[0], expires_s=60, **where)
    for time[0], runs in ((0, 1), (59, 1), (60, 2), (119, 2), (120, 3)):
        retriever.search(["capital"], 2)
        assert len(inner.batches) == runs


def test_a_failure_is_not_kept(where, answers):
    inner = Counting()
    retriever = cached(inner, **where)
    inner.broken = True
    with pytest.raises(RetrieverUnavailable) as info:
        retriever.search(QUERIES, 2)
    assert info.value.transient
    inner.broken = False
    assert retriever.search(QUERIES, 2) == answers


def test_the_least_recently_used_search_goes_first():
    inner = Counting()
    retriever = cached(inner, max_entries=2)
    for query in ("a", "b", "a", "c", "a", "c", "b"):
        retriever.search([query], 1)
    assert [queries for queries, _ in inner.batches] == [["a"], ["b"], ["c"], ["b"]]
    assert len(retriever._memory) == 2


def test_a_batch_larger_than_the_memory_is_answered_whole(answers):
    assert cached(Counting(), max_entries=1).search(QUERIES, 2) == answers


def test_later_runs_and_other_retrievers_share_the_file(tmp_path, answers):
    path = tmp_path / "cache.sqlite"
    cached(Counting(), path=path).search(QUERIES, 2)
    later, other = Counting(), Counting("other")
    assert cached(later, path=path).search(QUERIES, 2) == answers
    assert cached(other, path=path).search(QUERIES, 2) == answers
    assert later.batches == [] and other.batches == [(QUERIES, 2)]


def test_threads_share_it(tmp_path, answers):
    retriever = cached(Counting(), path=tmp_path / "cache.sqlite", max_entries=2)
    found = []
    threads = [
        threading.Thread(target=lambda: found.extend(retriever.search(QUERIES, 2) for _ in range(5))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [answers] * 20


def test_a_copy_has_the_file_and_not_the_memory(tmp_path, answers):
    retriever = cached(Counting(), now=_noon, path=tmp_path / "cache.sqlite")
    retriever.search(QUERIES, 2)
    copied = pickle.loads(pickle.dumps(retriever))
    copied._inner.batches.clear()
    assert not copied._memory
    assert copied.search(QUERIES, 2) == answers and copied._inner.batches == []
    assert copy.deepcopy(retriever) is retriever
    assert isinstance(retriever, Retriever) and retriever.fingerprint == "in-memory"


def _noon():
    return 43_200.0


def test_a_file_that_fails_later_is_gone_without(tmp_path, answers, caplog):
    path = tmp_path / "cache.sqlite"
    retriever = cached(Counting(), path=path, max_entries=0)
    retriever.search(QUERIES[:1], 2)
    path.write_bytes(b"no database at all" * 99)
    with caplog.at_level(logging.WARNING):
        assert retriever.search(QUERIES, 2) == answers
    assert "cannot be read, the search goes on without it" in caplog.text
    assert "cannot be written, the search goes on without it" in caplog.text


def test_a_damaged_row_is_searched_anew(tmp_path, answers, caplog):
    path = tmp_path / "cache.sqlite"
    cached(Counting(), path=path).search(QUERIES, 2)
    for damage in ("{", json.dumps([{"id": "1"}]), "3"):
        database = sqlite3.connect(path)
        with database:
            database.execute("UPDATE searches SET hits = ?", (damage,))
        database.close()
        assert cached(Counting(), path=path).search(QUERIES, 2) == answers
    assert "cannot be read" in caplog.text


def test_settings_say_what_is_wrong(tmp_path):
    for wrong in ({"max_entries": -1}, {"expires_s": 0}, {"ttl": 3}):
        with pytest.raises(ValidationError, match=next(iter(wrong))):
            CachedSettings(of="x", **wrong)
    (tmp_path / "text").write_text("not a database " * 99)
    for path in (tmp_path, tmp_path / "text", tmp_path / "text" / "below"):
        with pytest.raises(ConfigError, match=r"cannot be used: .*Name a file in a folder of yours"):
            cached(Counting(), path=path)


def test_cached_is_made_from_a_spec(tmp_path):
    retriever = get_retriever({"name": "cached", "of": "bm25", "path": str(tmp_path / "cache.sqlite")}, DOCUMENTS)
    assert retriever.search(QUERIES, 2) == get_retriever("bm25", DOCUMENTS).search(QUERIES, 2)

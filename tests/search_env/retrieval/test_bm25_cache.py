"""An index is built once, found again, and never half there."""

import multiprocessing
import pickle
import shutil
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from search_env.errors import RetrieverIndexError
from search_env.retrieval import InMemoryRetriever, bm25, get_retriever
from search_env.retrieval.bm25 import BM25Retriever, cache_folder
from search_env.types import Document

DOCUMENTS = tuple(Document(id=f"{n:03}", title=f"Page {n}", text=f"page about number{n}") for n in range(200))
QUERIES = ["number7", "page", "number199 number3"]


@pytest.fixture(scope="module")
def expected():
    return BM25Retriever.in_memory(DOCUMENTS).search(QUERIES, 5)


@pytest.fixture
def index(tmp_path):
    """The folder of an index that is in the cache already."""
    return tmp_path / BM25Retriever.build(DOCUMENTS, tmp_path).fingerprint


def test_an_index_is_built_once_and_then_opened(tmp_path, index, expected, monkeypatch):
    monkeypatch.setattr(bm25, "_write", lambda *_: pytest.fail("built again"))
    assert BM25Retriever.build(reversed(DOCUMENTS), tmp_path).search(QUERIES, 5) == expected


def test_another_corpus_is_another_index(tmp_path, index):
    other = BM25Retriever.build(DOCUMENTS[1:], tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {index.name, other.fingerprint}


def truncate(index):
    largest = max(index.glob("*.*"), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[:-100])


def flip_a_bit(index):
    terms = next(index.glob("*.term"))
    data = bytearray(terms.read_bytes())
    data[len(data) // 2] ^= 1
    terms.write_bytes(data)


def lose_a_file(index):
    next(index.glob("*.idx")).unlink()


def lose_the_manifest(index):
    (index / "manifest.json").unlink()


def garble_the_manifest(index):
    (index / "manifest.json").write_bytes(b"\xff{")


def empty(index):
    shutil.rmtree(index)
    index.mkdir()


def be_a_file(index):
    shutil.rmtree(index)
    index.write_text("not a folder")


@pytest.mark.parametrize(
    "damage", [truncate, flip_a_bit, lose_a_file, lose_the_manifest, garble_the_manifest, empty, be_a_file]
)
def test_a_damaged_or_half_built_index_is_built_again(tmp_path, index, expected, damage):
    damage(index)
    assert BM25Retriever.build(DOCUMENTS, tmp_path).search(QUERIES, 5) == expected
    assert [path.name for path in tmp_path.iterdir()] == [index.name]
    assert bm25._read(index) is not None


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_build_that_is_interrupted_leaves_nothing(tmp_path, monkeypatch, interruption):
    def interrupted(_):
        raise interruption

    monkeypatch.setattr(bm25, "_digests", interrupted)
    with pytest.raises((KeyboardInterrupt, RetrieverIndexError)):
        BM25Retriever.build(DOCUMENTS, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_retriever_outlives_its_cache(tmp_path, index, expected):
    retriever = BM25Retriever.build(DOCUMENTS, tmp_path)
    shutil.rmtree(index)
    assert retriever.search(QUERIES, 5) == expected
    assert pickle.loads(pickle.dumps(retriever)).search(QUERIES, 5) == expected
    assert bm25._read(index) is not None


def test_a_cache_that_cannot_be_written_names_the_way_out(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RetrieverIndexError, match=r"cannot be written to .*/file/bm25-.*SEARCH_ENV_CACHE"):
        BM25Retriever.build(DOCUMENTS, tmp_path / "file")


def build_and_search(folder):
    return BM25Retriever.build(DOCUMENTS, folder).search(QUERIES, 5)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_processes_that_build_at_once_end_with_one_good_index(tmp_path, expected):
    with ProcessPoolExecutor(4, multiprocessing.get_context("fork")) as pool:
        assert list(pool.map(build_and_search, [tmp_path] * 12)) == [expected] * 12
    (folder,) = tmp_path.iterdir()
    assert bm25._read(folder) is not None


def test_a_slower_builder_keeps_the_index_of_the_quicker(tmp_path, expected, monkeypatch):
    fill = bm25.fill

    def overtaken(index, documents):
        fill(index, documents)
        monkeypatch.setattr(bm25, "fill", fill)
        BM25Retriever.build(DOCUMENTS, tmp_path)

    monkeypatch.setattr(bm25, "fill", overtaken)
    assert BM25Retriever.build(DOCUMENTS, tmp_path).search(QUERIES, 5) == expected
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize(
    ("variables", "folder"),
    [
        ({"SEARCH_ENV_CACHE": "/a/b", "XDG_CACHE_HOME": "/c"}, "/a/b"),
        ({"SEARCH_ENV_CACHE": "~/b"}, "/home/someone/b"),
        ({"SEARCH_ENV_CACHE": "", "XDG_CACHE_HOME": "/c"}, "/c/search-env"),
        ({"XDG_CACHE_HOME": "relative"}, "/home/someone/.cache/search-env"),
        ({}, "/home/someone/.cache/search-env"),
    ],
)
def test_the_cache_folder_follows_the_environment(monkeypatch, variables, folder):
    for name in ("SEARCH_ENV_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", "/home/someone")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(folder)


def test_get_retriever_finds_bm25_by_name_and_caches_its_index(tmp_path, monkeypatch, expected):
    monkeypatch.setenv("SEARCH_ENV_CACHE", str(tmp_path / "new" / "folder"))
    retriever = get_retriever("bm25", DOCUMENTS)
    assert retriever.search(QUERIES, 5) == expected
    assert (tmp_path / "new" / "folder" / retriever.fingerprint).is_dir()


def test_get_retriever_returns_a_ready_retriever_as_it_is():
    ready = InMemoryRetriever(DOCUMENTS)
    assert get_retriever(ready, ()) is ready

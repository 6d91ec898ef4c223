"""An index on disk finds exactly what an index in memory finds, and says what is wrong with a folder."""

import json
import multiprocessing
import pickle
import random

import pytest

from search_env.errors import ConfigError, DatasetError, RetrieverIndexError, RetrieverUnavailable
from search_env.retrieval import Retriever
from search_env.retrieval.bm25 import BM25Retriever
from search_env.retrieval.bm25_folder import BM25Folder, DocumentFile, build_folder
from search_env.types import Document

QUERIES = ["alpha", "beta gamma", "alpha alpha delta", "nothing", "", "naïve 東京"]


@pytest.fixture(scope="module")
def documents():
    rng = random.Random(0)
    words = ["alpha", "beta", "gamma", "delta", "naïve", "東京"]
    return [
        Document(id=f"d{number}", title=rng.choice(words), text=" ".join(rng.choices(words, k=rng.randint(1, 30))))
        for number in rng.sample(range(1000), 300)
    ]


@pytest.fixture(scope="module")
def corpus(documents, tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    path.write_text("".join(json.dumps({"id": d.id, "title": d.title, "text": d.text}) + "\n" for d in documents))
    return path


@pytest.fixture(scope="module")
def folder(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("index") / "wiki"
    build_folder(corpus, folder)
    return folder


def search_in_another_process(retriever, queries, results):
    results.put(retriever.search(queries, 5))


def test_it_finds_what_the_index_in_memory_finds(documents, folder):
    in_memory = BM25Retriever.in_memory(documents)
    on_disk = BM25Folder(folder)
    assert isinstance(on_disk, Retriever)
    assert on_disk.search(QUERIES, 7) == in_memory.search(QUERIES, 7)
    assert on_disk.fingerprint == in_memory.fingerprint
    assert any(on_disk.search(QUERIES, 7))


def test_documents_are_read_in_order_of_their_ids(documents, folder):
    stored = DocumentFile(folder)
    assert list(stored) == sorted(documents, key=lambda document: document.id)
    assert stored[-1] == stored[len(stored) - 1]
    assert stored[2:5] == [stored[2], stored[3], stored[4]]
    with pytest.raises(IndexError):
        stored[len(stored)]


def test_a_corpus_larger_than_what_is_sorted_at_once_gives_the_same_files(corpus, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("search_env.retrieval.bm25_folder._RUN_BYTES", 1000)
    build_folder(corpus, tmp_path / "wiki")
    for name in ("documents.jsonl", "offsets.npy"):
        assert (tmp_path / "wiki" / name).read_bytes() == (folder / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "wiki").iterdir()) == sorted(
        ["documents.jsonl", "index", "manifest.json", "offsets.npy"]
    )


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_share_a_folder(folder, method):
    retriever = BM25Folder(folder)
    expected = retriever.search(QUERIES, 5)
    context = multiprocessing.get_context(method)
    results = context.Queue()
    process = context.Process(target=search_in_another_process, args=(retriever, QUERIES, results))
    process.start()
    assert results.get(timeout=60) == expected
    process.join()


def test_a_copy_opens_the_folder_for_itself(folder):
    retriever = BM25Folder(folder)
    expected = retriever.search(QUERIES, 5)
    data = pickle.dumps(retriever)
    assert len(data) < 2000  # neither documents nor an open index travel
    assert pickle.loads(data).search(QUERIES, 5) == expected


def test_a_folder_in_use_is_not_overwritten(corpus, folder):
    with pytest.raises(ConfigError, match="not empty"):
        build_folder(corpus, folder)


def test_a_bad_corpus_leaves_nothing_behind(tmp_path):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text('{"id": "1", "text": "one"}\n{"id": "1", "text": "two"}\n')
    with pytest.raises(DatasetError, match=r"corpus\.jsonl:2: id '1' is already used"):
        build_folder(corpus, tmp_path / "index")
    assert list(tmp_path.iterdir()) == [corpus]


def test_a_folder_without_an_index_is_named(tmp_path):
    with pytest.raises(RetrieverIndexError, match="holds no BM25 index"):
        BM25Folder(tmp_path)


def test_a_damaged_folder_is_named(corpus, tmp_path):
    build_folder(corpus, tmp_path / "index")
    with (tmp_path / "index" / "documents.jsonl").open("ab") as file:
        file.write(b"{}\n")
    with pytest.raises(RetrieverIndexError, match="damaged"):
        BM25Folder(tmp_path / "index")


def test_an_index_of_another_analyzer_is_refused(corpus, tmp_path):
    build_folder(corpus, tmp_path / "index")
    manifest = tmp_path / "index" / "manifest.json"
    manifest.write_text(manifest.read_text().replace("english-", "swedish-"))
    with pytest.raises(RetrieverIndexError, match="analyzer swedish-"):
        BM25Folder(tmp_path / "index")


def test_a_document_that_cannot_be_read_is_an_error_not_a_hit(corpus, tmp_path):
    build_folder(corpus, tmp_path / "index")
    path = tmp_path / "index" / "documents.jsonl"
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(RetrieverUnavailable, match="cannot be read"):
        BM25Folder(tmp_path / "index").search(["alpha"], 3)

"""A spec names a retriever with its settings, and whatever is wrong with it is said before anything is built."""

import json
from importlib.metadata import EntryPoint

import gymnasium as gym
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_env import plugins, retrieval
from search_env.errors import ConfigError, DatasetError, RetrieverIndexError
from search_env.retrieval import InMemoryRetriever, get_retriever, retriever_settings
from search_env.retrieval.base import digest_documents
from search_env.retrieval.bm25 import BM25Retriever
from search_env.retrieval.bm25_folder import build_folder
from search_env.retrieval.hybrid import HybridRetriever
from search_env.types import Document, Hit

DOCUMENTS = [
    Document(id="1", title="Oslo", text="Capital of Norway."),
    Document(id="2", title="Lima", text="Capital of Peru."),
    Document(id="3", title="Norway", text="A country."),
]


def ids(hits):
    return [hit.document.id for hit in hits]


def written(folder, documents):
    corpus = folder / "some.jsonl"
    corpus.write_text("".join(json.dumps({"id": d.id, "title": d.title, "text": d.text}) + "\n" for d in documents))
    return corpus


def test_a_name_and_a_mapping_with_that_name_are_the_same():
    assert get_retriever("bm25", DOCUMENTS).fingerprint == get_retriever({"name": "bm25"}, DOCUMENTS).fingerprint


def test_a_ready_retriever_is_returned_as_it_is():
    retriever = InMemoryRetriever(DOCUMENTS)
    assert get_retriever(retriever, ()) is retriever


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("bm52", "unknown retriever 'bm52'. Did you mean 'bm25'"),
        ({"index": "x"}, "mapping with the key 'name'"),
        ({"name": "bm25", "folder": "x"}, r"retriever 'bm25': folder: .*Its settings: index"),
        ({"name": "bm25", "indx": "x"}, r"indx: .*did you mean 'index'\?.*Its settings: index"),
        ({"name": "hybrid", "of": ["bm25"]}, "retriever 'hybrid': of: .*at least 2"),
        ({"name": "hybrid", "of": ["bm25", "bm52"]}, "unknown retriever 'bm52'"),
        ({"name": "cached", "of": {"name": "resilient", "of": {"name": "http", "urll": "x"}}}, "did you mean 'url'"),
    ],
)
def test_a_wrong_spec_is_told_with_what_is_allowed(spec, message):
    with pytest.raises(ConfigError, match=message):
        retriever_settings(spec)


def test_what_is_no_retriever_at_all_is_told():
    with pytest.raises(ConfigError, match="has search"):
        get_retriever(7, DOCUMENTS)


def test_an_environment_searches_the_index_its_spec_names(tmp_path):
    build_folder(written(tmp_path, DOCUMENTS), tmp_path / "index")
    spec = {"name": "bm25", "index": str(tmp_path / "index")}
    env = gym.make("SearchQA-FictionalWiki-v0", retriever=spec)
    env.reset(seed=0)
    documents, *_ = env.step("<begin_of_query> Peru <end_of_query>")
    assert "Lima: Capital of Peru." in documents
    with pytest.raises(RetrieverIndexError, match="holds no BM25 index"):
        gym.make("SearchQA-FictionalWiki-v0", retriever={"name": "bm25", "index": str(tmp_path)})


@pytest.fixture
def questions_only(tmp_path):
    folder = tmp_path / "questions"
    folder.mkdir()
    (folder / "train.jsonl").write_text(json.dumps({"id": "q", "question": "Capital of Peru?", "answers": ["Lima"]}))
    return folder


def test_questions_without_a_corpus_are_asked_of_engines_with_documents_of_their_own(questions_only, tmp_path):
    build_folder(written(tmp_path, DOCUMENTS), tmp_path / "index")
    index = {"name": "bm25", "index": str(tmp_path / "index")}
    recorded = {"name": "recorded", "cassette": str(tmp_path / "tape"), "of": {"name": "cached", "of": index}}
    specs = [index, recorded, {"name": "replay", "cassette": str(tmp_path / "tape")}, get_retriever(index, ())]
    for spec in specs:
        env = gym.make("SearchQA-HotpotQA-v0", data=questions_only, retriever=spec, top_k=1)
        _, info = env.reset(seed=0)
        assert info["question_id"] == "q" and env.unwrapped.dataset.documents == ()
        documents, *_ = env.step("<begin_of_query> Peru <end_of_query>")
        assert "Lima: Capital of Peru." in documents
    envs = gym.make_vec("SearchQA-HotpotQA-v0", num_envs=2, data=questions_only, retriever=recorded, top_k=1)
    envs.reset(seed=0)
    assert all("Lima: Capital of Peru." in text for text in envs.step(["<begin_of_query> Peru <end_of_query>"] * 2)[0])


@pytest.mark.parametrize(
    "spec",
    [
        {"name": "elasticsearch", "url": "http://127.0.0.1:9", "index": "wiki"},
        {"name": "opensearch", "url": "http://127.0.0.1:9", "index": "wiki"},
        {"name": "http", "url": "http://127.0.0.1:9"},
        {"name": "online", "provider": "serper", "api_key_env": "SERPER_API_KEY"},
        {"name": "resilient", "of": {"name": "http", "url": "http://127.0.0.1:9"}},
    ],
)
def test_an_environment_over_a_server_needs_no_corpus_and_no_server_until_it_searches(questions_only, spec):
    env = gym.make("SearchQA-HotpotQA-v0", data=questions_only, retriever=spec)
    assert env.reset(seed=0)[1]["question_id"] == "q"


@pytest.mark.parametrize("spec", ["bm25", {"name": "resilient", "of": "bm25"}, {"name": "hybrid", "of": ["bm25"] * 2}])
def test_an_engine_that_searches_the_corpus_says_that_there_is_none_and_what_to_do(questions_only, spec):
    with pytest.raises(DatasetError, match=r"no documents to search. Put corpus.jsonl beside .* \{name: elasticsearch"):
        gym.make("SearchQA-HotpotQA-v0", data=questions_only, retriever=spec)


@given(st.lists(st.tuples(*[st.text(alphabet="ab", max_size=2)] * 3), max_size=3, unique=True), st.data())
def test_a_digest_tells_any_two_corpora_apart(rows, data):
    other = data.draw(st.lists(st.tuples(*[st.text(alphabet="ab", max_size=2)] * 3), max_size=3, unique=True))
    one, two = ([Document(id=id_, title=title, text=text) for id_, title, text in made] for made in (rows, other))
    assert (digest_documents("x", one) == digest_documents("x", two)) == (rows == other)
    assert digest_documents("y", one) != digest_documents("x", one)


def test_a_retriever_in_memory_is_named_after_its_documents_whatever_their_order():
    fingerprint = InMemoryRetriever(DOCUMENTS).fingerprint
    assert InMemoryRetriever(iter(DOCUMENTS[::-1])).fingerprint == fingerprint
    assert InMemoryRetriever(DOCUMENTS[1:]).fingerprint != fingerprint


def test_hybrid_sums_reciprocal_ranks():
    words = InMemoryRetriever(DOCUMENTS)  # finds 1 before 3: ties by id
    (hits,) = HybridRetriever([words, BM25Retriever.in_memory(DOCUMENTS)]).search(["Norway"], 3)
    ranks = [ids(retriever.search(["Norway"], 9)[0]) for retriever in (words, BM25Retriever.in_memory(DOCUMENTS))]
    expected = {id_: sum(1 / (61 + ranking.index(id_)) for ranking in ranks if id_ in ranking) for id_ in "13"}
    assert {hit.document.id: hit.score for hit in hits} == pytest.approx(expected)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_hybrid_looks_beyond_what_it_returns():
    class Ranking:
        fingerprint = "ranking"

        def __init__(self, order):
            self.order = order

        def search(self, queries, top_k):
            by_id = {document.id: document for document in DOCUMENTS}
            return [tuple(Hit(document=by_id[id_], score=1.0) for id_ in self.order[:top_k])] * len(queries)

    found = HybridRetriever([Ranking("132"), Ranking("231")], window=3).search(["q", "q"], 1)
    # 3 is second in both: 2/62 is less than 1/61 + 1/63, so the window decides between 1 and 2, and their ids.
    assert [ids(hits) for hits in found] == [["1"], ["1"]]
    assert ids(HybridRetriever([Ranking("132"), Ranking("231")], window=2).search(["q"], 1)[0]) == ["3"]


def test_hybrid_is_made_from_nested_specs_and_names_all_in_its_fingerprint():
    one = get_retriever({"name": "hybrid", "of": ["bm25", "bm25"]}, DOCUMENTS)
    other = get_retriever({"name": "hybrid", "of": ["bm25", "bm25"]}, DOCUMENTS[:2])
    assert one.fingerprint.startswith("hybrid-")
    assert one.fingerprint != other.fingerprint
    assert ids(one.search(["Peru"], 1)[0]) == ["2"]


def test_an_installed_package_adds_a_retriever(monkeypatch):
    value = "search_env.retrieval.bm25:BM25Settings"
    point = EntryPoint(name="mine", value=value, group="search_env.retrievers")
    monkeypatch.setattr(plugins, "entry_points", lambda group: [point])
    plugins.plugins.cache_clear()
    try:
        assert isinstance(get_retriever("mine", DOCUMENTS), BM25Retriever)
        assert {"mine", "bm25"} <= set(retrieval.retriever_names())
    finally:
        plugins.plugins.cache_clear()

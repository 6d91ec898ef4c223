import copy
import json
import multiprocessing
import pickle
import threading
from concurrent.futures import ProcessPoolExecutor
from io import FileIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_env.errors import ConfigError, DatasetError, RetrieverError, RetrieverUnavailable
from search_env.retrieval import cassette, get_retriever
from search_env.retrieval.base import InMemoryRetriever, Retriever
from search_env.retrieval.cassette import RecordingRetriever, ReplayRetriever
from search_env.types import Document, Hit

QUERY_CACHE = Path(__file__).parents[4] / "shared" / "data" / "r1_searcher" / "hotpotqa_query_cache.jsonl"
DOCUMENTS = [
    Document(id="d1", title="Norway", text="Its capital is Oslo."),
    Document(id="d2", title="Péru\u2028", text="Its capital is Lima. \ud800 </answer>"),
]
QUERIES = ["capital", "Oslo capital", "nothing", "\ud800 “quoted”\n\0"]


class Counting(InMemoryRetriever):
    """Counts what it is asked."""

    def __init__(self, fingerprint="in-memory"):
        super().__init__(DOCUMENTS)
        self.fingerprint = fingerprint
        self.batches = []

    def search(self, queries, top_k):
        self.batches.append((list(queries), top_k))
        return super().search(queries, top_k)


@pytest.fixture
def tape(tmp_path):
    return tmp_path / "made" / "tape.jsonl"


@pytest.fixture
def answers():
    return Counting().search(QUERIES, 2)


def test_what_was_recorded_is_replayed_exactly(tape, answers):
    inner = Counting()
    recording = RecordingRetriever(inner, tape)
    assert recording.search(QUERIES, 2) == answers
    replay = ReplayRetriever(tape)
    assert replay.search(QUERIES[::-1], 2) == answers[::-1]
    assert replay.search([], 2) == []
    assert isinstance(recording, Retriever) and isinstance(replay, Retriever)


@given(
    st.dictionaries(
        st.tuples(st.text(st.characters(exclude_categories=())), st.integers(1, 9)),
        st.lists(st.builds(Hit, document=st.sampled_from(DOCUMENTS), score=st.floats(1e-9, 1e9)), max_size=3),
        min_size=1,
        max_size=5,
    )
)
def test_any_search_at_all_is_replayed_exactly(tmp_path_factory, searches):
    class Given:
        fingerprint = "given"

        def search(self, queries, top_k):
            return [tuple(searches[query, top_k]) for query in queries]

    tape = tmp_path_factory.mktemp("tape") / "tape.jsonl"
    recording = RecordingRetriever(Given(), tape)
    for query, top_k in searches:
        recording.search([query], top_k)
    replay = ReplayRetriever(tape)
    for (query, top_k), hits in searches.items():
        assert replay.search([query], top_k) == [tuple(hits)] == recording.search([query], top_k)


def test_a_line_is_addressed_by_everything_that_decides_its_result(tape):
    RecordingRetriever(Counting(), tape).search(["capital"], 2)
    (record,) = map(json.loads, tape.read_text().splitlines())
    assert record["key"] == cassette.address("in-memory", "capital", 2)
    assert (record["retriever"], record["query"], record["top_k"]) == ("in-memory", "capital", 2)
    assert record["hits"][0] == {"id": "d1", "title": "Norway", "text": "Its capital is Oslo.", "score": 1.0}
    others = [
        ("in-memory", "capital", 3),
        ("in-memory", "Capital", 2),
        ("other", "capital", 2),
        ("in-memory", "", None),
    ]
    assert len({record["key"], *(cassette.address(*other) for other in others)}) == 5


def test_a_search_on_the_cassette_is_not_run_again(tape, answers):
    inner = Counting()
    recording = RecordingRetriever(inner, tape)
    recording.search(["capital", "capital", "nothing"], 2)
    assert recording.search(QUERIES, 2) == answers
    assert RecordingRetriever(inner, tape).search(QUERIES, 2) == answers
    assert inner.batches == [(["capital", "nothing"], 2), ([QUERIES[1], QUERIES[3]], 2)]
    assert len(tape.read_bytes().splitlines()) == len(QUERIES)


def test_a_miss_names_the_query_and_the_file_and_is_no_outage(tape):
    RecordingRetriever(Counting(), tape).search(["capital"], 2)
    replay = ReplayRetriever(tape)
    for query, top_k in (("capital of Norway", 2), ("capital", 3)):
        with pytest.raises(RetrieverError, match=f"{tape} has no search for '{query}' with top_k {top_k}") as info:
            replay.search(["capital", query], top_k)
        assert not isinstance(info.value, RetrieverUnavailable)


def test_a_line_torn_at_any_byte_is_recorded_again(tape, answers):
    RecordingRetriever(Counting(), tape).search(QUERIES, 2)
    whole = tape.read_bytes()
    last = len(whole) - len(whole.splitlines(keepends=True)[-1])
    for end in range(last, len(whole) + 1):
        tape.write_bytes(whole[:end])
        inner = Counting()
        assert RecordingRetriever(inner, tape).search(QUERIES, 2) == answers
        assert inner.batches == ([(QUERIES[-1:], 2)] if end < len(whole) - 1 else [])
        assert tape.read_bytes().rstrip() == whole.rstrip()
        RecordingRetriever(inner, tape).search(["one more"], 2)
        assert ReplayRetriever(tape).search([*QUERIES, "one more"], 2) == [*answers, ()]


def test_a_replay_reads_past_a_torn_last_line(tape, answers):
    RecordingRetriever(Counting(), tape).search(QUERIES, 2)
    tape.write_bytes(tape.read_bytes()[:-9])
    replay = ReplayRetriever(tape)
    assert replay.search(QUERIES[:-1], 2) == answers[:-1]
    with pytest.raises(RetrieverError, match="has no search for"):
        replay.search(QUERIES, 2)


def test_a_full_disk_leaves_the_cassette_as_it_was(tape, monkeypatch):
    recording = RecordingRetriever(Counting(), tape)
    recording.search(["capital"], 2)
    before = tape.read_bytes()

    class Full(FileIO):
        def write(self, data):
            if len(data) > 10:
                return super().write(data[: len(data) // 2])
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda self, mode, **_: Full(self, mode.rstrip("b")))
        with pytest.raises(RetrieverUnavailable, match=r"cannot be recorded on .*No space left.* Make room"):
            recording.search(["nothing"], 2)
    assert tape.read_bytes() == before
    assert recording.search(["nothing"], 2) == [()]


def test_recorders_of_one_file_agree_on_what_was_found(tape):
    class Changing(Counting):
        """What it finds changes from call to call, as on the web."""

        def search(self, queries, top_k):
            super().search(queries, top_k)
            return [(Hit(document=DOCUMENTS[0], score=float(next(self.numbers))),) for _ in queries]

    one, other = Changing(), Changing()
    one.numbers, other.numbers = iter(range(1, 9)), iter(range(11, 19))
    first, second = RecordingRetriever(one, tape), RecordingRetriever(other, tape)
    found = first.search(["capital"], 1)
    assert second.search(["capital"], 1) == found == ReplayRetriever(tape).search(["capital"], 1)


def record_some(tape, first):
    queries = [f"capital {number}" for number in range(first, first + 20)]
    return RecordingRetriever(Counting(), tape).search(queries, 2)


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_processes_and_threads_record_to_one_file(tape):
    with ProcessPoolExecutor(3, multiprocessing.get_context("fork")) as pool:
        list(pool.map(record_some, [tape] * 4, (0, 10, 20, 10)))
    shared = RecordingRetriever(Counting(), tape)
    threads = [
        threading.Thread(target=shared.search, args=([f"capital {number}" for number in range(start, 60)], 2))
        for start in (30, 40, 50)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    queries = [json.loads(line)["query"] for line in tape.read_text().splitlines()]
    assert sorted(queries) == sorted(f"capital {number}" for number in range(60))


def test_a_pickled_recorder_goes_on_with_the_same_file(tape, answers):
    inner = Counting()
    recording = RecordingRetriever(inner, tape)
    recording.search(QUERIES, 2)
    copied = pickle.loads(pickle.dumps(recording))
    assert copied.search(QUERIES, 2) == answers and copied.fingerprint == "in-memory"
    assert len(tape.read_bytes().splitlines()) == len(QUERIES)
    assert copy.deepcopy(recording) is recording


def test_a_replay_carries_its_searches_with_it(tape, answers):
    RecordingRetriever(Counting(), tape).search(QUERIES, 2)
    replay = ReplayRetriever(tape)
    data, fingerprint = pickle.dumps(replay), replay.fingerprint
    tape.unlink()
    copied = pickle.loads(data)
    assert copied.search(QUERIES, 2) == answers and copied.fingerprint == fingerprint
    assert copy.deepcopy(replay) is replay


def test_the_fingerprint_of_a_replay_is_that_of_its_searches(tape, tmp_path):
    RecordingRetriever(Counting(), tape).search(QUERIES[:3], 2)
    first = ReplayRetriever(tape).fingerprint
    lines = tape.read_bytes().splitlines(keepends=True)
    turned = tmp_path / "turned.jsonl"
    turned.write_bytes(b"".join([*lines[::-1], lines[0]]) + b'{"torn')
    assert ReplayRetriever(turned).fingerprint == first
    assert first.startswith("replay-") and len(first) == len("replay-") + 16
    turned.write_bytes(b"".join(lines).replace(b"Oslo.", b"Oslo!"))
    assert ReplayRetriever(turned).fingerprint != first
    RecordingRetriever(Counting(), tape).search(QUERIES, 2)
    assert ReplayRetriever(tape).fingerprint != first


def test_a_cassette_holds_the_searches_of_one_retriever(tape):
    RecordingRetriever(Counting(), tape).search(["capital"], 2)
    other = Counting("other")
    with pytest.raises(
        ConfigError, match="holds the searches of in-memory, this retriever is other; record to another"
    ):
        RecordingRetriever(other, tape).search(["Oslo"], 2)
    assert other.batches == []
    line = json.loads(tape.read_text()) | {"retriever": "other"}
    with tape.open("a") as file:
        file.write(json.dumps(line) + "\n")
    with pytest.raises(DatasetError, match=r"tape.jsonl:2: this search is of other, those before it are of in-memory"):
        ReplayRetriever(tape)


@pytest.mark.parametrize(
    "line", ["{", "[]", "3", '{"query": "x"}', '{"retriever": "r", "query": "q", "top_k": 1, "hits": [{"id": "1"}]}']
)
def test_a_malformed_line_is_named(tape, line):
    RecordingRetriever(Counting(), tape).search(["capital"], 2)
    tape.write_text(f"{tape.read_text()}{line}\n")
    for use in (lambda: RecordingRetriever(Counting(), tape), lambda: ReplayRetriever(tape)):
        with pytest.raises(DatasetError, match=r"tape\.jsonl:2: no search of a cassette"):
            use()


def test_a_file_that_cannot_be_used_says_what_to_do(tmp_path):
    with pytest.raises(ConfigError, match=r"missing\.jsonl cannot be read: .*Record one: \{name: recorded"):
        ReplayRetriever(tmp_path / "missing.jsonl")
    with pytest.raises(ConfigError, match="cannot be written"):
        RecordingRetriever(Counting(), tmp_path)
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(DatasetError, match="holds no search"):
        ReplayRetriever(tmp_path / "empty.jsonl")


def write_query_cache(path, last="\n"):
    lines = [
        {"query": "Irish party", "docs": [{"title": "B", "text": "first"}, {"title": "A", "text": "second"}]},
        {"query": "älg", "docs": [{"title": "B", "text": "first"}]},
    ]
    path.write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines) + last, encoding="utf-8")


def test_a_query_cache_of_r1_searcher_is_replayed_in_its_order(tmp_path):
    path = tmp_path / "cache.jsonl"
    for last in ("\n", ""):
        write_query_cache(path, last)
        replay = ReplayRetriever(path)
        (hits, elk) = replay.search(["Irish party", "älg"], 5)
        assert [(hit.document.title, hit.document.text, hit.score) for hit in hits] == [
            ("B", "first", 1.0),
            ("A", "second", 0.5),
        ]
        assert elk[0].document == hits[0].document and hits[0].document.id != hits[1].document.id
        assert replay.search(["Irish party"], 1) == [hits[:1]]
    with pytest.raises(RetrieverError, match="no search for 'Irish'"):
        replay.search(["Irish"], 5)


def test_a_query_cache_is_not_recorded_to(tmp_path):
    path = tmp_path / "cache.jsonl"
    write_query_cache(path)
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="holds the searches of r1-searcher query cache"):
        RecordingRetriever(Counting(), path).search(["x"], 1)
    assert path.read_bytes() == before


@pytest.mark.skipif(not QUERY_CACHE.exists(), reason="the released query cache is not here")
def test_the_released_query_cache_replays_every_one_of_its_searches():
    with QUERY_CACHE.open(encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    replay = ReplayRetriever(QUERY_CACHE)
    found = replay.search([record["query"] for record in records], 5)
    assert len(found) == 2323
    for record, hits in zip(records, found, strict=True):
        assert [{"title": hit.document.title, "text": hit.document.text} for hit in hits] == record["docs"]
        assert len({hit.document.id for hit in hits}) == 5


def test_recorded_and_replay_are_made_from_specs(tape):
    recording = get_retriever({"name": "recorded", "cassette": str(tape), "of": "bm25"}, DOCUMENTS)
    answers = recording.search(QUERIES, 2)
    assert answers == get_retriever("bm25", DOCUMENTS).search(QUERIES, 2)
    assert get_retriever({"name": "replay", "cassette": str(tape)}, []).search(QUERIES, 2) == answers

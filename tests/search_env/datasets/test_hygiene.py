"""Every format of questions and of corpora, plain and compressed: what is wrong is named, or left out when asked."""

import csv
import gzip
import io
import json
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_env.datasets import SkippedRows, load
from search_env.datasets.corpora import stream_corpus
from search_env.datasets.jsonl import read_folder
from search_env.errors import DatasetError


class Source(NamedTuple):
    """A format: how its rows are written, and which field bears the answer, or a passage's text."""

    name: str
    file: str
    row: Callable[[int], dict[str, Any]]
    id: str
    answer: str

    @property
    def json(self):
        return self.file.endswith((".json", ".jsonl"))

    def dump(self, rows):
        if self.file.endswith(".json"):
            return json.dumps(rows, indent=0).encode()
        if self.file.endswith(".jsonl"):
            return "".join(json.dumps(row) + "\n" for row in rows).encode()
        table = io.StringIO(newline="")
        writer = csv.DictWriter(
            table, self.row(0), delimiter="\t" if self.file.endswith(".tsv") else ",", lineterminator="\n"
        )
        writer.writeheader()
        writer.writerows(rows)
        return table.getvalue().encode()

    def rows(self, count):
        return [self.row(number) for number in range(count)]

    def read(self, path, skipped=None):
        """The ids of what the file holds."""
        if self.name in CORPORA:
            return [document.id for document in stream_corpus(path, skipped)]
        return [question.id for question in load(self.name, split="dev", data=path, skipped=skipped).questions]

    def place(self, path, number):
        """How messages name the row of a number, from 1."""
        if self.file.endswith(".json"):
            return f"{path}: row {number}"
        return f"{path}:{number + (not self.file.endswith('.jsonl'))}"  # a table has a head


def sentences(number):
    return {
        "_id": f"q{number}", "question": f"Who ruled Land{number}?", "answer": f"King{number}",
        "supporting_facts": [[f"Land{number}", 0]], "context": [[f"Land{number}", [f"King{number} ruled."]]],
    }  # fmt: skip


def musique(number):
    return {
        "id": f"2hop__{number}", "question": f"Who ruled Land{number}?", "answer": f"King{number}",
        "paragraphs": [{"idx": 0, "title": "Land", "paragraph_text": f"King{number} ruled.", "is_supporting": True}],
        "question_decomposition": [{"question": "Who ruled?", "answer": f"King{number}", "paragraph_support_idx": 0}],
    }  # fmt: skip


def ours(number):
    return {
        "id": f"q{number}", "question": f"Who ruled Land{number}?", "answers": [f"King{number}"],
        "gold_titles": [f"Land{number}"], "decomposition": [{"question": "Who ruled?", "answer": f"King{number}"}],
    }  # fmt: skip


def kilt(number):
    return {"wikipedia_id": f"{number}", "wikipedia_title": f"Land{number}", "text": [f"King{number} ruled."]}


CORPORA = ("ours", "wiki-18", "kilt", "abstracts", "dpr")
SOURCES = (
    Source("custom", "dev.jsonl", ours, "id", "answers"),
    Source("hotpotqa", "hotpot_dev_distractor_v1.json", sentences, "_id", "answer"),
    Source("2wikimultihopqa", "dev.json", lambda n: sentences(n) | {"answer_id": f"Q{n}"}, "_id", "answer"),
    Source("musique", "musique_ans_v1.0_dev.jsonl", musique, "id", "answer"),
    Source("bamboogle", "bamboogle.csv", lambda n: {"Question": f"Who, {n}?", "Answer": f"King{n}"}, "", "Answer"),
    Source("r1-searcher", "stage_1.jsonl", lambda n: {"idx": n, "question": "Who?", "answer": "Ada"}, "idx", "answer"),
    Source("ours", "c.jsonl", lambda n: {"id": f"d{n}", "title": f"Land{n}", "text": f"King{n} ruled."}, "id", "text"),
    Source("wiki-18", "c.jsonl", lambda n: {"id": f"{n}", "contents": f'"Land"\nKing{n} ruled.'}, "id", "contents"),
    Source("kilt", "c.jsonl", kilt, "wikipedia_id", "text"),
    Source("abstracts", "c.jsonl", lambda n: {"id": f"{n}", "title": "Land", "text": [f"King{n}."]}, "id", "text"),
    Source("dpr", "psgs.tsv", lambda n: {"id": f"{n}", "text": f"King{n} ruled.", "title": "Land"}, "id", "text"),
)


def parametrized(sources):
    return pytest.mark.parametrize("source", sources, ids=lambda source: source.name)


every_source = parametrized(SOURCES)
plain_and_compressed = pytest.mark.parametrize("ending", ["", ".gz"])


def write(folder, source, content, ending=""):
    path = folder / f"{source.file}{ending}"
    path.write_bytes(gzip.compress(content) if ending else content)
    return path


def without(row, key):
    return {name: value for name, value in row.items() if name != key}


@every_source
@plain_and_compressed
def test_well_formed_rows_are_read_and_none_is_counted(tmp_path, source, ending):
    skipped = SkippedRows(5)
    path = write(tmp_path, source, source.dump(source.rows(4)), ending)
    assert len(set(source.read(path, skipped))) == 4
    assert skipped.count == 0 and str(skipped) == "no row was malformed"


@every_source
@plain_and_compressed
def test_a_byte_order_mark_and_crlf_change_nothing(tmp_path, source, ending):
    content = source.dump(source.rows(3))
    expected = source.read(write(tmp_path, source, content, ending))
    content = b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n")
    assert source.read(write(tmp_path, source, content, ending)) == expected


@parametrized([source for source in SOURCES if source.id])
@plain_and_compressed
def test_an_id_that_occurs_twice_is_named_with_both_places_and_never_left_out(tmp_path, source, ending):
    rows = source.rows(3)
    rows[2][source.id] = rows[0][source.id]
    path = write(tmp_path, source, source.dump(rows), ending)
    for skipped in (None, SkippedRows(5)):
        with pytest.raises(DatasetError) as caught:
            source.read(path, skipped)
        message = str(caught.value)
        assert message.startswith(f"{source.place(path, 3)}: id ")
        assert f"is already used at {source.place(path, 1)}; give every row its own" in message


@pytest.mark.parametrize(
    ("source", "broken"),
    [
        pytest.param(source, broken, id=f"{source.name} {broken}")
        for source in SOURCES
        for broken in ("missing", "empty", "wrong type", "no object")
        if source.json or broken in ("missing", "empty")  # the cells of a table are text
    ],
)
@plain_and_compressed
def test_a_malformed_row_is_named_or_left_out_and_counted_when_asked(tmp_path, source, ending, broken):
    rows = source.rows(4)
    kept = source.read(write(tmp_path, source, source.dump(rows), ending))
    rows[1] = {
        "missing": without(rows[1], source.answer),
        "empty": rows[1] | {source.answer: ""},
        "wrong type": rows[1] | {source.answer: {"a": 1}},
        "no object": ["no", "row"],
    }[broken]
    path = write(tmp_path, source, source.dump(rows), ending)
    with pytest.raises(DatasetError) as caught:
        source.read(path)
    assert str(caught.value).startswith(f"{source.place(path, 2)}: ")
    skipped = SkippedRows(1)
    assert source.read(path, skipped) == [kept[0], *kept[2:]]
    assert skipped.count == 1
    assert str(skipped) == f"1 malformed row was left out; the first:\n  {caught.value}"


@every_source
def test_more_malformed_rows_than_allowed_are_an_error_that_names_the_first(tmp_path, source):
    rows = source.rows(9)
    for number in range(1, 7):
        rows[number][source.answer] = ""
    path = write(tmp_path, source, source.dump(rows))
    with pytest.raises(DatasetError) as caught:
        source.read(path, SkippedRows(5))
    first, *others = str(caught.value).splitlines()
    assert first.startswith(f"{source.place(path, 7)}: ")
    assert first.endswith("(5 malformed rows were left out before it, the most allowed; the first:")
    assert [other.partition(": '")[0].strip() for other in others] == [source.place(path, n) for n in (2, 3, 4)]
    assert len(source.read(path, SkippedRows(6))) == 3


@every_source
@plain_and_compressed
def test_invalid_utf8_is_named_by_its_line(tmp_path, source, ending):
    content = source.dump(source.rows(3)).replace(b"King1", b"King\xff").replace(b'"idx": 1', b'"idx": "\xff"')
    assert content.count(b"\xff")
    path = write(tmp_path, source, content, ending)
    line = content[: content.index(b"\xff")].count(b"\n") + 1
    for skipped in (None, SkippedRows(5)):
        if skipped and not source.file.endswith(".json"):
            assert len(source.read(path, skipped)) == 2 and skipped.count == 1
        else:  # A list that is not JSON has no rows that could be told apart.
            with pytest.raises(DatasetError) as caught:
                source.read(path, skipped)
            assert str(caught.value) == f"{path}:{line}: invalid UTF-8 (byte 0xff); save the file as UTF-8"


@every_source
def test_a_truncated_archive_is_named_and_never_left_out(tmp_path, source):
    whole = gzip.compress(source.dump(source.rows(200)))
    for content in (whole[: len(whole) // 2], whole[:-1]):
        path = tmp_path / f"{source.file}.gz"
        path.write_bytes(content)
        for skipped in (None, SkippedRows(500)):
            with pytest.raises(DatasetError, match=r"\.gz: not a whole gzip file \(.+\); fetch it again"):
                source.read(path, skipped)


def test_a_file_without_one_good_row_is_refused_whatever_is_allowed(tmp_path):
    for source in SOURCES:
        rows = [row | {source.answer: ""} for row in source.rows(2)]
        with pytest.raises(DatasetError, match=r"no questions|no documents"):
            source.read(write(tmp_path, source, source.dump(rows)), SkippedRows(2))


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["title", "answer"]), inner),
    max_leaves=5,
)
CELLS = st.text(st.characters(exclude_categories=["Cc", "Cs"]), max_size=5)  # one line each


@every_source
@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_whatever_a_field_holds_the_row_is_read_or_named(tmp_path_factory, source, data):
    row = source.row(1)
    value = VALUES if source.json else CELLS
    row[data.draw(st.sampled_from(sorted(row)))] = data.draw(value)
    if source.json:
        extra = ["level", "hops", "type", "answerable", "answer_id", "answer_aliases", "evidences"]
        row[data.draw(st.sampled_from(extra))] = data.draw(value)
    path = write(tmp_path_factory.mktemp("values"), source, source.dump([source.row(0), row]))
    skipped = SkippedRows(1)
    try:
        assert 1 <= len(source.read(path, skipped)) + skipped.count <= 3
    except DatasetError as error:
        assert "is already used at" in str(error)


def test_the_corpus_beside_the_questions_has_its_malformed_rows_counted_with_them(tmp_path):
    questions, passages = SOURCES[0], SOURCES[6]
    (tmp_path / "dev.jsonl").write_bytes(questions.dump([*questions.rows(2), {}]))
    (tmp_path / "corpus.jsonl").write_bytes(passages.dump([{}, *passages.rows(3)]))
    skipped = SkippedRows(2)
    found, documents = read_folder(tmp_path, "dev", skipped)
    assert (len(found), len(documents), skipped.count) == (2, 3, 2)
    with pytest.raises(DatasetError, match=r"corpus\.jsonl:1: 'id' is missing(.|\n)*dev\.jsonl:3: "):
        load("custom", split="dev", data=tmp_path, skipped=SkippedRows(1))


def test_a_row_that_was_left_out_uses_up_no_id(tmp_path):
    for source in SOURCES[:4]:
        rows = [source.row(1) | {source.answer: ""}, source.row(1)]
        assert len(source.read(write(tmp_path, source, source.dump(rows)), SkippedRows(1))) == 1


def test_the_names_of_an_answer_are_left_out_if_they_are_malformed(tmp_path):
    source = SOURCES[2]
    aliases = [{"Q_id": "Q0", "aliases": ["Rex"]}, {"Q_id": "Q1", "aliases": "Regina"}, []]
    (tmp_path / "id_aliases.json").write_text("".join(json.dumps(row) + "\n" for row in aliases))
    path = write(tmp_path, source, source.dump(source.rows(2)))
    skipped = SkippedRows(2)
    dataset = load(source.name, split="dev", data=path, skipped=skipped)
    assert [question.answers for question in dataset.questions] == [("King0", "Rex"), ("King1",)]
    assert skipped.count == 2


def test_the_ids_of_bamboogle_are_places_in_the_table_whatever_is_left_out(tmp_path):
    source = SOURCES[4]
    rows = source.rows(3)
    rows[0]["Answer"] = ""
    assert source.read(write(tmp_path, source, source.dump(rows)), SkippedRows(1)) == ["bamboogle-1", "bamboogle-2"]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (
            "Who, of all?,Ada",
            r"csv:2: has 3 cells, and the head names 2: Question, Answer; quote a cell that holds a c",
        ),
        ("Who?", r"csv:2: has 1 cells, and the head names 2"),
    ],
)
def test_a_row_of_bamboogle_with_other_cells_than_the_head_is_malformed(tmp_path, row, problem):
    path = write(tmp_path, SOURCES[4], f"Question,Answer\n{row}\nWho?,Ada\n".encode())
    with pytest.raises(DatasetError, match=problem):
        SOURCES[4].read(path)
    assert SOURCES[4].read(path, SkippedRows(1)) == ["bamboogle-1"]


@pytest.mark.parametrize("quoted", ['"Who?,Ada\nWho?,Ada\n', '"Who"?,Ada\n'])
def test_quotes_that_do_not_close_are_never_left_out(tmp_path, quoted):
    path = write(tmp_path, SOURCES[4], f"Question,Answer\n{quoted}".encode())
    with pytest.raises(DatasetError, match=r"bamboogle\.csv:\d: not a row of a table \(.+\); quote"):
        SOURCES[4].read(path, SkippedRows(5))


def test_what_is_left_out_once_is_missing_only_where_it_was_asked_for(tmp_path):
    path = write(tmp_path, SOURCES[0], SOURCES[0].dump([*SOURCES[0].rows(2), {}]))
    load("custom", data=path, skipped=SkippedRows(1))
    with pytest.raises(DatasetError, match=r"dev\.jsonl:3"):
        load("custom", data=path)

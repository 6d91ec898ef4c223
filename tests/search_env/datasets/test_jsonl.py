import json
from pathlib import Path

import pytest

from search_env.datasets.jsonl import read_corpus, read_folder, read_questions
from search_env.datasets.rows import SkippedRows
from search_env.errors import ConfigError, DatasetError
from search_env.types import Document, Question

ROOT = Path(__file__).parents[3]
SHARED = ROOT.parent / "shared" / "data"
GOOD = '{"id": "q1", "question": "Where?", "answers": ["Oslo"]}'


def write(folder, content, name="dev.jsonl"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def question(**changes):
    fields = {"id": "q2", "question": "Who?", "answers": ["Ada"]} | changes
    return json.dumps({key: value for key, value in fields.items() if value != "MISSING"})


def test_every_field_of_a_question_is_read(tmp_path):
    path = write(
        tmp_path,
        question(
            answers=["Ada", "Ada L."], type="bridge", level="hard", gold_titles=["A", "B", "C"], upstream_split="x"
        ),
    )
    assert read_questions(path) == (
        Question(
            id="q2", text="Who?", answers=("Ada", "Ada L."), kind="bridge", hops=3, gold_titles=("A", "B", "C"),
            level="hard",
        ),
    )  # fmt: skip


def test_hops_that_the_row_tells_win_over_the_number_of_titles(tmp_path):
    assert read_questions(write(tmp_path, question(hops=4, gold_titles=["A"])))[0].hops == 4


def test_optional_fields_may_be_missing_or_null(tmp_path):
    path = write(tmp_path, question(type=None, level=None, gold_titles=None))
    assert read_questions(path) == (Question(id="q2", text="Who?", answers=("Ada",)),)


def test_byte_order_mark_crlf_and_empty_lines_are_tolerated(tmp_path):
    content = b"\xef\xbb\xbf" + f"{GOOD}\r\n\r\n{question()}\r\n".encode()
    assert [item.id for item in read_questions(write(tmp_path, content))] == ["q1", "q2"]


def test_unusual_line_separators_inside_a_text_do_not_split_the_row(tmp_path):
    row = json.dumps({"id": "d", "title": "T", "text": "a\u2028b\u0085c"}, ensure_ascii=False)
    assert read_corpus(write(tmp_path, row))[0].text == "a\u2028b\u0085c"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"id": "q2", "question": ', "broken JSON at column 26"),
        ('{"id": "q2"} trailing', "broken JSON at column 14"),
        (b'{"id": "\x00"}', "broken JSON at column 9"),
        ("[" * 100_000, "broken JSON"),
        ('{"id": ' + "9" * 5000 + "}", "broken JSON: Exceeds the limit"),
        (b'{"id": "q\xff"}', "invalid UTF-8 .byte 0xff.; save"),
        ('["q2", "Who?"]', "must be a JSON object {…}, got a list"),
        (question(id="MISSING"), "'id' is missing; the row has 'question', 'answers'"),
        (question(id=7), "'id' must be text, got a number 7"),
        (question(id="q1"), "id 'q1' is already used at .*dev.jsonl:1; give every row its own"),
        (question(question="MISSING"), "'question' is missing"),
        (question(question=" "), "'question' is empty"),
        (question(question=["Who?"]), "'question' must be text, got a list"),
        (question(answers="MISSING"), "'answers' is missing; the row has 'id', 'question'"),
        (question(answers=None), "'answers' is missing"),
        (question(answers=[]), "'answers' is an empty list; it must hold at least one"),
        (question(answers="Ada"), "'answers' must be a list of texts, got text 'Ada'"),
        (question(answers=["Ada", ""]), "'answers' holds an empty text"),
        (question(answers=[1850]), r"'answers\[\]' must be text, got a number 1850"),
        (question(answers=["\ud800"]), r"'answers\[\]' holds half a surrogate pair at character 0"),
        (question(gold_titles="Ada"), "'gold_titles' must be a list"),
        (question(gold_titles=[None]), r"'gold_titles\[\]' must be text, got NoneType"),
        (question(type=["bridge"]), "'type' must be text"),
        (question(hops="two"), "'hops' must be a whole number, got text 'two'"),
        (question(hops=True), "'hops' must be a whole number, got true or false"),
        (question(hops=-1), "'hops' must be a whole number"),
    ],
)
def test_a_broken_line_is_named_by_file_and_line(tmp_path, line, problem):
    line = line if isinstance(line, bytes) else line.encode()
    path = write(tmp_path, GOOD.encode() + b"\n\n" + line + b"\n")
    with pytest.raises(DatasetError, match=rf"dev\.jsonl:3: {problem}") as caught:
        read_questions(path)
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"title": "T", "text": "x"}', "'id' is missing"),
        ('{"id": "d1", "title": "T"}', "'text' is missing"),
        ('{"id": "d1", "title": "T", "text": ""}', "'text' is empty"),
        ('{"id": "d1", "title": 3, "text": "x"}', "'title' must be text"),
        ('{"id": "d0", "title": "T", "text": "x"}', "id 'd0' is already used at .*corpus.jsonl:1"),
    ],
)
def test_a_broken_document_is_named_by_file_and_line(tmp_path, line, problem):
    path = write(tmp_path, '{"id": "d0", "title": "T", "text": "x"}\n' + line, "corpus.jsonl")
    with pytest.raises(DatasetError, match=rf"corpus\.jsonl:2: {problem}"):
        read_corpus(path)


def test_a_document_needs_no_title(tmp_path):
    assert read_corpus(write(tmp_path, '{"id": "d", "text": "x"}')) == (Document(id="d", title="", text="x"),)


@pytest.mark.parametrize(("read", "what"), [(read_questions, "questions"), (read_corpus, "documents")])
def test_an_empty_file_says_what_belongs_in_it(tmp_path, read, what):
    with pytest.raises(DatasetError, match=rf"dev\.jsonl:1: holds no {what}; write one"):
        read(write(tmp_path, "\n"))


def test_a_missing_file_and_a_folder_are_one_message(tmp_path):
    with pytest.raises(DatasetError, match=r"none\.jsonl: cannot be read: No such file"):
        read_questions(tmp_path / "none.jsonl")
    with pytest.raises(DatasetError, match="cannot be read: Is a directory"):
        read_questions(tmp_path)


def test_a_folder_is_read_by_split_over_one_corpus(tmp_path):
    write(tmp_path, GOOD, "train.jsonl")
    write(tmp_path, question())
    write(tmp_path, '{"id": "d", "text": "x"}', "corpus.jsonl")
    questions, documents = read_folder(tmp_path, "dev")
    assert [item.id for item in questions] == ["q2"] and [item.id for item in documents] == ["d"]
    with pytest.raises(ConfigError, match=r"unknown split 'dve'. Did you mean 'dev'. Known: dev, train"):
        read_folder(tmp_path, "dve")


def test_a_folder_without_questions_says_what_it_holds_and_what_a_row_is(tmp_path):
    write(tmp_path, '{"id": "d", "text": "x"}', "corpus.jsonl")
    with pytest.raises(ConfigError, match=r'holds corpus.jsonl. Put them in .*dev.jsonl, one {"id", "question"'):
        read_folder(tmp_path, "dev")


def test_a_list_in_place_of_lines_is_told_what_lines_are(tmp_path):
    with pytest.raises(DatasetError, match=r"dev\.jsonl:1: broken JSON .*; write one object a line"):
        read_questions(write(tmp_path, '[\n {"id": "q"}\n]'))
    with pytest.raises(DatasetError, match="holds no questions beside 1 malformed rows that were left out"):
        read_questions(write(tmp_path, '{"id": "q"}'), SkippedRows(5))


@pytest.mark.parametrize("name", ["hotpotqa", "2wikimultihopqa", "musique"])
def test_the_public_sets_are_read_whole(name):
    if not SHARED.is_dir():
        pytest.skip(f"needs the public data at {SHARED}")
    for split in ("train", "dev"):
        questions, documents = read_folder(SHARED / name, split)
        lines = (SHARED / name / f"{split}.jsonl").read_text().splitlines()
        assert len(questions) == len(lines)
        titles = {document.title for document in documents}
        assert all(title in titles for item in questions for title in item.gold_titles) or name == "musique"

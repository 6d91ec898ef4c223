import json
import sys

import datasets as hub
import pytest

from search_env.datasets import load
from search_env.datasets.hotpotqa import HOTPOTQA
from search_env.errors import ConfigError, DatasetError, MissingDependencyError
from search_env.types import Question


def official(number=0, **changes):
    row = {
        "_id": f"id{number}",
        "question": "Which city is the capital of the country where Edvard Munch was born?",
        "answer": "Oslo",
        "type": "bridge",
        "level": "hard",
        "supporting_facts": [["Edvard Munch", 0], ["Norway", 1], ["Edvard Munch", 2]],
        "context": [
            ["Norway", ["Norway is a country.", " Its capital is Oslo."]],
            ["Edvard Munch", [" Munch was a painter. ", "He was born in Norway."]],
            [f"Page {number}", [f"Nothing of use, {number}."]],
            ["Blank", [" "]],
        ],
    } | changes
    return {key: value for key, value in row.items() if value != "MISSING"}


def hub_rows(rows):
    """The rows as the hub stores them: columns of lists instead of lists of pairs."""
    return hub.Dataset.from_list(
        [
            {
                "id": row["_id"],
                **{key: row[key] for key in ("question", "answer", "type", "level")},
                "supporting_facts": {
                    "title": [title for title, _ in row["supporting_facts"]],
                    "sent_id": [index for _, index in row["supporting_facts"]],
                },
                "context": {
                    "title": [title for title, _ in row["context"]],
                    "sentences": [sentences for _, sentences in row["context"]],
                },
            }
            for row in rows
        ]
    )


def write(path, rows):
    path.write_text(json.dumps(rows))
    return path


def test_official_rows_become_questions_over_their_pooled_paragraphs(tmp_path):
    dataset = HOTPOTQA.load("dev", write(tmp_path / "some.json", [official(0), official(1)]))
    assert dataset.name == "hotpotqa" and dataset.split == "dev"
    assert dataset.questions[0] == Question(
        id="id0",
        text="Which city is the capital of the country where Edvard Munch was born?",
        answers=("Oslo",),
        kind="bridge",
        hops=2,
        gold_titles=("Edvard Munch", "Norway"),
        level="hard",
    )
    assert [(document.title, document.text) for document in dataset.documents] == [
        ("Norway", "Norway is a country. Its capital is Oslo."),
        ("Edvard Munch", "Munch was a painter. He was born in Norway."),
        ("Page 0", "Nothing of use, 0."),
        ("Page 1", "Nothing of use, 1."),
    ]


def test_a_title_with_two_texts_is_two_documents(tmp_path):
    other = official(1, context=[["Norway", ["Another passage on Norway."]]])
    dataset = HOTPOTQA.load("dev", write(tmp_path / "some.json", [official(0), other]))
    assert [document.title for document in dataset.documents].count("Norway") == 2


def test_document_ids_do_not_depend_on_order_or_file(tmp_path):
    one = HOTPOTQA.load("dev", write(tmp_path / "one.json", [official(0), official(1)]))
    other = HOTPOTQA.load("train", write(tmp_path / "other.json", [official(1), official(0)]))
    assert {document.id: document for document in one.documents} == {
        document.id: document for document in other.documents
    }
    assert one.documents[0].id == "hotpotqa-1b5dd3b0b3ba1d60"


def test_the_hub_gives_what_the_official_file_gives(tmp_path, monkeypatch):
    rows = [official(0), official(1)]
    hub_rows(rows).save_to_disk(str(tmp_path / "hub"))
    calls = []

    def load_dataset(*args, **kwargs):
        calls.append((args, kwargs))
        return hub.load_from_disk(str(tmp_path / "hub"))

    monkeypatch.setattr(hub, "load_dataset", load_dataset)
    dataset = HOTPOTQA.load("dev", "hotpotqa/hotpot_qa")
    assert dataset == HOTPOTQA.load("dev", write(tmp_path / "some.json", rows))
    revision = "1908d6afbbead072334abe2965f91bd2709910ab"
    assert calls == [(("hotpotqa/hotpot_qa",), {"name": "distractor", "split": "validation", "revision": revision})]
    with pytest.raises(ConfigError, match=r"unknown split 'trian'. Did you mean 'train'. Known: dev, train"):
        HOTPOTQA.load("trian", "hotpotqa/hotpot_qa")


def test_a_broken_hub_row_is_named(monkeypatch):
    rows = hub_rows([official(0), official(1, answer="")])
    monkeypatch.setattr(hub, "load_dataset", lambda *args, **kwargs: rows)
    with pytest.raises(DatasetError, match="hotpotqa/hotpot_qa/train: row 2: 'answer' is empty"):
        HOTPOTQA.load("train", "hotpotqa/hotpot_qa")


def test_a_hub_out_of_reach_is_one_message_with_the_other_ways(monkeypatch):
    def load_dataset(*args, **kwargs):
        raise ConnectionError("no route to the hub")

    monkeypatch.setattr(hub, "load_dataset", load_dataset)
    with pytest.raises(DatasetError, match="no route to the hub") as caught:
        HOTPOTQA.load("dev", "hotpotqa/hotpot_qa")
    assert caught.value.__suppress_context__
    assert "FOLDER" in str(caught.value)


def test_without_the_hub_library_the_message_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'search-env\[hub\]'"):
        HOTPOTQA.load("dev", "hotpotqa/hotpot_qa")


def jsonl_folder(folder):
    folder.mkdir(exist_ok=True)
    for split in ("train", "dev"):
        row = {"id": split, "question": "Capital?", "answers": ["Oslo", "Oslo city"], "gold_titles": ["Norway"]}
        (folder / f"{split}.jsonl").write_text(json.dumps(row))
    (folder / "corpus.jsonl").write_text(json.dumps({"id": "d", "title": "Norway", "text": "Its capital is Oslo."}))
    return folder


def test_a_folder_of_json_lines_and_one_of_its_files_are_read(tmp_path):
    folder = jsonl_folder(tmp_path / "data")
    dataset = HOTPOTQA.load("dev", folder)
    assert dataset.questions[0].answers == ("Oslo", "Oslo city")
    assert HOTPOTQA.load("dev", folder / "dev.jsonl") == dataset
    with pytest.raises(ConfigError, match=r"unknown split 'test'. Known: dev, train"):
        HOTPOTQA.load("test", folder)


def test_a_folder_of_official_files_is_read_by_split(tmp_path):
    write(tmp_path / "hotpot_train_v1.1.json", [official(0)])
    write(tmp_path / "hotpot_dev_distractor_v1.json", [official(1)])
    assert [HOTPOTQA.load(split, tmp_path).questions[0].id for split in ("train", "dev")] == ["id0", "id1"]
    with pytest.raises(ConfigError, match=r"unknown split 'validation'. Known: dev, train"):
        HOTPOTQA.load("validation", tmp_path)


def test_an_empty_folder_says_what_it_lacks(tmp_path):
    with pytest.raises(DatasetError, match=r"neither hotpot_train_v1.1.json nor train.jsonl"):
        HOTPOTQA.load("train", tmp_path)


def test_a_folder_and_a_file_without_a_corpus_are_questions_only(tmp_path):
    whole = HOTPOTQA.load("dev", jsonl_folder(tmp_path))
    (tmp_path / "corpus.jsonl").unlink()
    for data in (tmp_path, tmp_path / "dev.jsonl"):
        dataset = HOTPOTQA.load("dev", data)
        assert dataset.questions == whole.questions and dataset.documents == ()


def test_a_corpus_that_is_there_and_empty_is_refused(tmp_path):
    (jsonl_folder(tmp_path) / "corpus.jsonl").write_text("")
    with pytest.raises(DatasetError, match=r"corpus\.jsonl:1: holds no documents"):
        HOTPOTQA.load("dev", tmp_path)


@pytest.mark.parametrize("data", [None, "no/such/place"])
def test_missing_data_says_every_way_to_get_it(data):
    with pytest.raises(DatasetError) as caught:
        load("hotpotqa", data=data)
    for way in (
        'data="hotpotqa/hotpot_qa"',
        "pip install 'search-env[hub]'",
        "hotpot_dev_distractor_v1.json",
        "FOLDER",
    ):
        assert way in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"_id": "id0"}, "id 'id0' is already used at .*bad.json: row 1"),
        ({"_id": "MISSING"}, "'_id' is missing"),
        ({"answer": "MISSING"}, "'answer' is missing"),
        ({"answer": ""}, "'answer' is empty"),
        ({"question": 3}, "'question' must be text"),
        ({"supporting_facts": "MISSING"}, "'supporting_facts' is missing"),
        ({"supporting_facts": [["Norway"]]}, "'supporting_facts' must be a list of pairs"),
        ({"supporting_facts": [[1, 1]]}, "'supporting_facts' must be text, got a number"),
        ({"context": {"title": []}}, "'context' must be a list of pairs"),
        ({"context": [["Norway", "Its capital"]]}, "'context' of 'Norway' must hold a list of sentences"),
        ({"context": [["Norway", [None]]]}, "'context' must be text"),
    ],
)
def test_a_broken_row_is_named_by_file_and_row(tmp_path, changes, problem):
    path = write(tmp_path / "bad.json", [official(0), official(1, **changes)])
    with pytest.raises(DatasetError, match=rf"bad\.json: row 2: {problem}"):
        HOTPOTQA.load("dev", path)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'[\n{"_id": "1",\n"question" "x"}]', "bad.json:3: broken JSON at column 12"),
        (b'[\n\n"\xff"]', "bad.json:3: invalid UTF-8"),
        (b'{"data": []}', "bad.json:1: must be a JSON list"),
        (b"[1]", "bad.json: row 1: must be a JSON object"),
        (b"[" * 100_000, "bad.json:1: broken JSON"),
        (b"[]", "has no questions"),
    ],
)
def test_a_broken_file_is_named_by_line(tmp_path, content, problem):
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=problem):
        HOTPOTQA.load("dev", path)


def test_a_byte_order_mark_is_tolerated(tmp_path):
    path = tmp_path / "bom.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps([official()]).encode())
    assert len(HOTPOTQA.load("dev", path).questions) == 1

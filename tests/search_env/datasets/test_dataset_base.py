import copy
import dataclasses

import numpy as np
import pytest

from search_env.datasets import DATASETS, Dataset, load
from search_env.errors import ConfigError, DatasetError
from search_env.types import Document, Question

QUESTIONS = tuple(Question(id=f"q{n}", text=f"Question {n}?", answers=(f"answer {n}",)) for n in range(4))
DOCUMENTS = tuple(Document(id=f"d{n}", title=f"Title {n}", text="Text.") for n in range(3))
DATASET = Dataset(name="tiny", split="dev", questions=QUESTIONS, documents=DOCUMENTS)


def test_a_question_is_found_by_id_and_by_index():
    assert DATASET.question("q2") is DATASET.question(2) is DATASET.question(np.int64(2)) is QUESTIONS[2]


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("q9", "no question with id 'q9' in tiny/dev, which has 4"),
        (4, "no question with index 4 in tiny/dev; give 0 to 3"),
        (-1, "no question with index -1"),
        (1.5, r"id \(str\) or index \(int\), got 1.5"),
        (None, "got None"),
    ],
)
def test_an_unknown_question_is_named_with_what_is_allowed(key, message):
    with pytest.raises(ConfigError, match=message):
        DATASET.question(key)


def test_drawing_follows_the_generator_and_reaches_every_question():
    draws = [[DATASET.draw(rng).id for _ in range(40)] for rng in (np.random.default_rng(5), np.random.default_rng(5))]
    assert draws[0] == draws[1]
    assert set(draws[0]) == {"q0", "q1", "q2", "q3"}


def test_the_fingerprint_covers_answers_documents_and_order_but_not_the_names():
    fingerprint = DATASET.fingerprint
    assert len(fingerprint) == 16
    assert dataclasses.replace(DATASET, name="other", split="train").fingerprint == fingerprint
    other_answer = dataclasses.replace(QUESTIONS[0], answers=("another",))
    others = [
        dataclasses.replace(DATASET, questions=(other_answer, *QUESTIONS[1:])),
        dataclasses.replace(DATASET, documents=DOCUMENTS[:2]),
        dataclasses.replace(DATASET, questions=QUESTIONS[::-1]),
    ]
    assert len({fingerprint, *(other.fingerprint for other in others)}) == 4


def test_the_fingerprint_is_the_same_everywhere():
    assert DATASET.fingerprint == "b04fa627f3224f27"


def test_the_corpus_has_a_fingerprint_of_its_own_whatever_is_asked_and_in_whatever_order_it_lies():
    fingerprint = DATASET.corpus_fingerprint
    assert fingerprint == "73668a6de4edf092"
    for same in ({"questions": QUESTIONS[:1]}, {"documents": DOCUMENTS[::-1]}, {"name": "other", "split": "train"}):
        assert dataclasses.replace(DATASET, **same).corpus_fingerprint == fingerprint
    for change in ({"id": "d9"}, {"title": "Another"}, {"text": "Another."}):
        other = dataclasses.replace(DOCUMENTS[0], **change)
        assert dataclasses.replace(DATASET, documents=(other, *DOCUMENTS[1:])).corpus_fingerprint != fingerprint
    assert dataclasses.replace(DATASET, documents=()).corpus_fingerprint is None


def test_a_dataset_is_never_copied():
    assert copy.deepcopy({"dataset": DATASET})["dataset"] is DATASET


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"questions": ()}, "has no questions"),
        ({"questions": (QUESTIONS[0], QUESTIONS[0])}, "2 questions share 1 ids"),
        ({"documents": (DOCUMENTS[0], DOCUMENTS[0])}, "2 documents share 1 ids"),
    ],
)
def test_empty_and_ambiguous_datasets_are_refused(change, message):
    with pytest.raises(DatasetError, match=message):
        dataclasses.replace(DATASET, **change)


def test_a_dataset_may_be_questions_only():
    questions_only = dataclasses.replace(DATASET, documents=())
    assert questions_only.question(0) is DATASET.question(0)
    assert questions_only.fingerprint != DATASET.fingerprint


def test_an_unknown_dataset_gets_a_suggestion():
    with pytest.raises(ConfigError, match=r"unknown dataset 'hotpotqe'. Did you mean 'hotpotqa'"):
        load("hotpotqe")


def test_data_that_is_no_path_is_refused():
    with pytest.raises(ConfigError, match="data must be a path or the id of a dataset on the hub, got list"):
        load("hotpotqa", data=["dev.jsonl"])


def test_loading_happens_once_until_a_file_changes(tmp_path, monkeypatch):
    calls = []

    def loader(split, data, skipped):
        calls.append(split)
        return dataclasses.replace(DATASET, split=split)

    monkeypatch.setitem(DATASETS, "counted", loader)
    file = tmp_path / "dev.jsonl"
    file.write_text("{}")
    first = load("counted", split="dev", data=tmp_path)
    assert load("counted", split="dev", data=str(tmp_path)) is first
    assert calls == ["dev"]
    file.write_text("{} ")
    load("counted", split="dev", data=tmp_path)
    load("counted", split="train", data=tmp_path)
    assert calls == ["dev", "dev", "train"]

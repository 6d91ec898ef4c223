"""FictionalWiki: deterministic, answerable by construction, and split by entity."""

import hashlib
import os
import subprocess
import sys
from collections import Counter

import pytest

from search_env import datasets
from search_env.datasets import fictional_wiki
from search_env.datasets.fictional_wiki import (
    KIND_SHARES,
    QuestionKind,
    Relation,
    generate,
    make_questions,
    make_world,
    write_pages,
)
from search_env.errors import ConfigError
from search_env.retrieval.bm25 import BM25Retriever

_DIGEST = """
import hashlib
from search_env.datasets.fictional_wiki import generate
questions, documents = generate("test", seed=3, people=60, questions=100)
print(hashlib.sha256(repr((questions, documents)).encode()).hexdigest())
"""


@pytest.mark.parametrize("hash_seed", ["0", "1"])
def test_the_same_seed_gives_the_same_text_under_any_hash_seed(hash_seed):
    questions, documents = generate("test", seed=3, people=60, questions=100)
    expected = hashlib.sha256(repr((questions, documents)).encode()).hexdigest()
    environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
    found = subprocess.run([sys.executable, "-c", _DIGEST], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == expected


def test_the_default_world_is_pinned_so_that_scores_stay_comparable():
    load = datasets.load("fictional-wiki", split="test")
    text = repr((load.questions, load.documents)).encode()
    assert hashlib.sha256(text).hexdigest()[:16] == "f28da21f913c86b1"


def test_another_seed_gives_another_world():
    assert generate("test", seed=1, people=40, questions=20) != generate("test", seed=2, people=40, questions=20)


def test_no_entity_occurs_in_questions_of_both_splits():
    def entities(split):
        questions, _ = generate(split)
        names = {name for question in questions for step in question.steps for name in (step.subject, step.object)}
        return {name for name in names if not name.isdigit()}

    assert not entities("train") & entities("test")


def test_both_splits_share_one_corpus_without_duplicate_titles():
    _, train = generate("train")
    _, test = generate("test")
    assert train == test
    assert len({document.title for document in train}) == len(train)


def test_dev_questions_are_about_the_test_world_and_none_of_the_test_questions():
    dev, test = fictional_wiki.load("dev"), fictional_wiki.load("test")
    assert len(dev.questions) == len(test.questions) == 400 and dev.documents == test.documents
    assert not {question.text for question in dev.questions} & {question.text for question in test.questions}
    titles = {document.title for document in test.documents if document.id.startswith("test")}
    assert all(set(question.gold_titles) <= titles for question in dev.questions)


def test_every_step_is_written_on_the_page_of_its_subject():
    questions, documents = generate("train")
    pages = {document.title: document.text for document in documents}
    for question in questions:
        for step in question.steps:
            assert step.object in pages[step.subject]


def test_chains_lead_from_hop_to_hop_to_the_answer():
    questions, _ = generate("train")
    chains = [q for q in questions if q.kind in (QuestionKind.COMPOSITIONAL, QuestionKind.INFERENCE)]
    for question in chains:
        for one, following in zip(question.steps, question.steps[1:], strict=False):
            assert one.object == following.subject
        assert question.answer == question.steps[-1].object
        assert question.answer not in question.text


def test_comparisons_are_decided_by_the_facts():
    questions, _ = generate("train")
    kinds = (QuestionKind.COMPARISON, QuestionKind.BRIDGE_COMPARISON)
    answers = Counter()
    for question in (q for q in questions if q.kind in kinds):
        half = len(question.steps) // 2
        one, other = question.steps[half - 1], question.steps[-1]
        if one.relation is Relation.BIRTHPLACE:
            assert question.answer == ("yes" if one.object == other.object else "no")
        else:
            earlier = 0 if int(one.object) < int(other.object) else half
            assert question.answer == question.steps[earlier].subject
        answers[question.answer if question.answer in ("yes", "no") else "name"] += 1
    assert min(answers.values()) > 0.1 * sum(answers.values())


def test_kinds_and_hops_have_their_shares_and_texts_are_distinct():
    questions, _ = generate("train")
    counts = Counter((question.kind, len(question.steps)) for question in questions)
    for key, share in KIND_SHARES.items():
        assert counts[key] / len(questions) == pytest.approx(share, abs=0.03)
    assert len({question.text for question in questions}) == len(questions)


def test_a_small_world_ends_its_questions_instead_of_repeating_them():
    questions = list(make_questions(make_world(0, 20), 0))
    assert 50 < len(questions) == len({question.text for question in questions})


def test_worlds_scale_with_the_number_of_people():
    assert len(list(write_pages(make_world(0, 2000), 0, prefix=""))) > 4 * len(
        list(write_pages(make_world(0, 400), 0, prefix=""))
    )
    with pytest.raises(ValueError, match="at least 20 people"):
        make_world(0, 19)


def test_hops_can_be_followed_through_the_real_retriever_and_one_query_is_not_enough(tmp_path):
    questions, documents = generate("test")
    retriever = BM25Retriever.build(documents, cache_dir=tmp_path)

    def found(queries, wanted, top_k):
        titles = {hit.document.title for hits in retriever.search(queries, top_k) for hit in hits}
        return wanted <= titles

    gold = [{step.subject for step in question.steps} for question in questions]
    followed = [found([s.query for s in q.steps], g, 3) for q, g in zip(questions, gold, strict=True)]
    assert sum(followed) / len(followed) >= 0.99
    at_once = [found([q.text], g, 5) for q, g in zip(questions, gold, strict=True) if len(q.steps) > 1]
    assert sum(at_once) / len(at_once) < 0.40


def test_settings_in_data_choose_seed_and_size():
    small = fictional_wiki.load("train", "seed=1,people=40,questions=25")
    assert len(small.questions) == 25
    assert small.fingerprint != fictional_wiki.load("train", "seed=2,people=40,questions=25").fingerprint


@pytest.mark.parametrize("data", ["colour=blue", "seed=x", "seed"])
def test_an_unknown_setting_names_what_is_allowed(data):
    with pytest.raises(ConfigError, match="seed, people, questions"):
        fictional_wiki.load("train", data)


def test_an_unknown_split_names_the_splits():
    with pytest.raises(ConfigError, match="Known: dev, test, train"):
        fictional_wiki.load("validation")

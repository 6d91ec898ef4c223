"""Floors: answers without reading, and one search with the question as it stands."""

from __future__ import annotations

import pytest
from search_agents.evaluation.floors import answer_floors, question_as_query

from search_env import Document, InMemoryRetriever, Question


def question(
    number: int, answer: str, *, kind: str = "a", hops: int = 1, text: str = "?", gold: tuple[str, ...] = ()
) -> Question:
    return Question(id=str(number), text=text, answers=(answer,), kind=kind, hops=hops, gold_titles=gold)


def test_the_majority_answer_is_that_of_the_kind() -> None:
    questions = [
        question(n, answer, kind=kind)
        for n, (answer, kind) in enumerate([("yes", "c"), ("yes", "c"), ("no", "c"), ("Oslo", "b")])
    ]
    floor = answer_floors(questions, seed=0)["majority_answer"]
    assert floor["em"] == 0.75
    assert floor["by_kind"]["c"]["em"] == pytest.approx(2 / 3)
    assert floor["by_kind"]["b"]["em"] == 1.0


def test_a_random_answer_is_another_questions_of_the_same_kind() -> None:
    different = [question(n, f"answer{n}") for n in range(20)]
    assert answer_floors(different, seed=0)["random_answer"]["f1"] == 0.0
    equal = [question(n, "same") for n in range(20)]
    assert answer_floors(equal, seed=0)["random_answer"]["em"] == 1.0
    mixed = [question(n, "yes" if n % 2 else "no") for n in range(200)]
    assert 0.35 < answer_floors(mixed, seed=0)["random_answer"]["em"] < 0.65


def test_the_only_question_of_a_kind_gets_the_answer_of_another_kind() -> None:
    floor = answer_floors([question(0, "Oslo", kind="a"), question(1, "Bergen", kind="b")], seed=0)["random_answer"]
    assert floor["em"] == 0.0


def test_floors_are_the_same_for_the_same_seed_and_say_nothing_of_searching() -> None:
    questions = [question(n, str(n % 3), hops=1 + n % 2) for n in range(30)]
    first = answer_floors(questions, seed=5)
    assert first == answer_floors(questions, seed=5) != answer_floors(questions, seed=6)
    assert "search_rate" not in first["random_answer"]
    assert set(first["random_answer"]["by_hops"]) == {"1", "2"}


def test_all_gold_passages_must_be_found_by_the_one_search() -> None:
    documents = [
        Document(id=name, title=name, text=text) for name, text in [("A", "red"), ("B", "blue"), ("C", "green")]
    ]
    questions = [
        question(0, "x", hops=1, text="red", gold=("A",)),
        question(1, "x", hops=2, text="red blue", gold=("A", "B")),
        question(2, "x", hops=2, text="red", gold=("A", "B")),
        question(3, "x", text="nothing known of its documents"),
    ]
    found = question_as_query(questions, InMemoryRetriever(documents), top_k=3)
    assert (found["n"], found["top_k"]) == (3, 3)
    assert found["all_gold_rate"] == pytest.approx(2 / 3)
    assert found["all_gold_rate_multi_hop"] == 0.5
    assert found["by_hops"] == {"1": 1.0, "2": 0.5}


def test_without_gold_titles_there_is_no_rate() -> None:
    found = question_as_query([question(0, "x")], InMemoryRetriever([]), top_k=3)
    assert found["all_gold_rate"] is None
    assert found["n"] == 0

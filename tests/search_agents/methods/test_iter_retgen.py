"""Iter-RetGen: query t is the question followed by what round t-1 wrote."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

Play = Callable[..., Any]
ASKED = "Who is married to the performer of Green?"


def test_each_query_is_the_question_and_the_generation_before_it(play: Play) -> None:
    said = ["Green is by Steve Hillage.", "Steve Hillage is married.", "So the answer is: Miquette Giraudy."]
    played = play("iter-retgen", *said)
    assert played.queries == [ASKED, f"{ASKED} {said[0]}", f"{ASKED} {said[1]}"]
    assert (played.answer, len(played.prompts)) == ("Miquette Giraudy", 3)


def test_each_round_reads_the_newest_documents_only_and_nothing_that_it_wrote_before(play: Play) -> None:
    played = play("iter-retgen", "An album by Steve Hillage.", "Married.", "So the answer is: y", top_k=1)
    shown = [prompt.rpartition("\n\n")[2] for prompt in played.prompts]
    titles = [[line.split(":")[0] for line in text.splitlines() if "Passage" in line] for text in shown]
    assert titles == [["Passage 1, Steve Hillage"], ["Passage 1, Green"], ["Passage 1, Steve Hillage"]]
    assert "‹|im_end|›" in shown[1]
    assert all(prompt.endswith(f"Question: {ASKED}\nThoughts:") for prompt in played.prompts)


@pytest.mark.parametrize(("budget", "rounds"), [(8, 3), (2, 2), (0, 1)])
def test_the_budget_of_searches_bounds_the_rounds(play: Play, budget: int, rounds: int) -> None:
    played = play("iter-retgen", *["So the answer is: a"] * 3, max_searches=budget)
    assert (len(played.queries), len(played.prompts)) == (rounds, rounds)


def test_a_last_chain_that_states_no_answer_is_asked_for_it_and_no_other(play: Play) -> None:
    played = play("iter-retgen", "I wonder.", "Hm.", "It is late.", " Lima. And so on.")
    assert played.purposes == ["chain of thought"] * 3 + ["answer"]
    assert played.prompts[3].endswith("Thoughts: It is late. So the answer is:")
    assert (played.answer, len(played.queries)) == ("Lima", 3)


def test_an_empty_generation_leaves_the_question_as_it_is(play: Play) -> None:
    assert play({"name": "iter-retgen", "iterations": 2}).queries == [ASKED, ASKED]
    assert play("iter-retgen").answer == ""


def test_flashrag_writes_short_answers(play: Play) -> None:
    played = play(
        {"name": "iter-retgen", "variant": "flashrag"}, " Steve Hillage\nmore", "Miquette", "Miquette Giraudy"
    )
    assert played.queries == [ASKED, f"{ASKED} Steve Hillage", f"{ASKED} Miquette"]
    assert played.answer == "Miquette Giraudy" and played.purposes == ["answer"] * 3
    assert "Thoughts:" not in "".join(played.prompts)

"""Self-Ask: a search between any two follow-up questions, and an answer only where one was given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from search_env.types import StopReason

Play = Callable[..., Any]

FIRST = "Follow up: Who performs Green?\nIntermediate answer: made up"
SECOND = "Follow up: Who is Steve Hillage married to?\nIntermediate answer:"
FINAL = "So the final answer is: Miquette Giraudy\n"
FREE = {"name": "self-ask", "follow_ups": "free"}


def chain(prompt: str) -> str:
    """What was asked and answered after the examples."""
    return prompt.rpartition("Who is married to the performer of Green?\n")[2]


def test_a_search_answers_each_follow_up_question_before_the_next_is_asked(play: Play) -> None:
    played = play("self-ask", FIRST, SECOND, FINAL, top_k=1)
    assert played.queries == ["Who performs Green?", "Who is Steve Hillage married to?"]
    assert played.purposes == ["follow-up question"] * 3
    green = "Green: Green is an album by Steve Hillage. ‹|im_end|›"
    hillage = "Steve Hillage: Steve Hillage is married to Miquette Giraudy."
    begun = "Are follow up questions needed here: Yes.\n"
    hop1 = f"{begun}Follow up: Who performs Green?\nIntermediate answer: {green}\n"
    hop2 = f"{hop1}Follow up: Who is Steve Hillage married to?\nIntermediate answer: {hillage}\n"
    assert [chain(prompt) for prompt in played.prompts] == [begun, hop1, hop2]
    assert played.answer == "Miquette Giraudy"
    assert "made up" not in "".join(played.prompts)


def test_the_setting_says_how_many_documents_answer_a_follow_up_question(play: Play) -> None:
    assert {top_k for _, top_k in play("self-ask", FIRST, FINAL, top_k=2).retriever.asked} == {2}
    one = play({"name": "self-ask", "top_k": 1}, FIRST, FINAL, top_k=2)
    assert one.retriever.asked == [("Who performs Green?", 1)] and "Red" not in chain(one.prompts[1])


@pytest.mark.parametrize("reply", ["I do not know.", "Follow up:\nIntermediate answer:", "", "So the final answer is:"])
def test_without_follow_up_question_and_answer_the_answer_is_demanded(play: Play, reply: str) -> None:
    played = play("self-ask", FIRST, reply, " Lima\nand more", top_k=1)
    assert (played.answer, len(played.queries)) == ("Lima", 1)
    assert played.purposes == ["follow-up question", "follow-up question", "final answer"]
    assert chain(played.prompts[-1]).endswith("‹|im_end|›\nSo the final answer is:")


def test_the_model_may_say_that_no_follow_up_question_is_needed(play: Play) -> None:
    played = play(FREE, " No.\nSo the final answer is: Lima")
    assert (played.answer, played.queries, len(played.prompts)) == ("Lima", [], 1)
    assert chain(played.prompts[0]) == "Are follow up questions needed here:"


@pytest.mark.parametrize(
    ("spec", "budget", "searches"),
    [("self-ask", 8, 5), ("self-ask", 2, 2), ("self-ask", 0, 0), ({"name": "self-ask", "max_iterations": 1}, 8, 1)],
)
def test_follow_up_questions_are_bounded_and_then_the_answer_is_demanded(
    play: Play, spec: Any, budget: int, searches: int
) -> None:
    said = [FIRST] * searches + [" Lima"]
    played = play(spec, *said, max_searches=budget)
    assert (played.answer, len(played.queries), len(played.prompts)) == ("Lima", searches, searches + 1)
    assert played.purposes[-1] == "final answer"


def test_a_search_that_finds_nothing_leaves_the_intermediate_answer_to_the_model(play: Play) -> None:
    played = play("self-ask", "Follow up: zzz\nIntermediate answer:", " Steve Hillage\n", FINAL)
    assert played.purposes == ["follow-up question", "nothing found", "intermediate answer", "follow-up question"]
    assert chain(played.prompts[2]).endswith("Follow up: zzz\nIntermediate answer: Steve Hillage\n")


def test_a_chat_model_continues_a_response_that_is_begun(play: Play) -> None:
    played = play("self-ask", FIRST, FINAL, chat=True)
    system, user, prefill = (getattr(played.engine.requests[1].prompt, part) for part in ("system", "user", "prefill"))
    assert "Odalin Verrick" in system and user == "Question: Who is married to the performer of Green?"
    assert prefill.startswith("Are follow up questions needed here: Yes.\nFollow up: Who performs Green?")
    assert played.answer == "Miquette Giraudy"


# --- FlashRAG's ---

FLASHRAG = {"name": "self-ask", "variant": "flashrag"}


def test_flashrag_shows_the_newest_documents_and_lets_the_model_answer_each_follow_up_question(play: Play) -> None:
    said = [FIRST, " Steve Hillage\nFollow up: again", SECOND, f" Miquette Giraudy.\n{FINAL}"]
    played = play(FLASHRAG, *said, top_k=1)
    assert played.queries == [
        "Who is married to the performer of Green?",
        "Who performs Green?",
        "Who is Steve Hillage married to?",
    ]
    assert played.purposes == ["follow-up question", "intermediate answer"] * 2
    assert chain(played.prompts[1]).endswith("Follow up: Who performs Green?\nIntermediate answer:")
    assert chain(played.prompts[2]).endswith("Intermediate answer: Steve Hillage\n")
    last = played.prompts[3].rpartition("Question: Who is married")[0]
    assert "Miquette" in last and "is an album by" not in last
    assert played.answer == "Miquette Giraudy"


def test_flashrag_without_a_final_answer_has_none(play: Play) -> None:
    played = play(FLASHRAG, *["nothing of use"] * 9)
    assert (played.answer, len(played.prompts), len(played.queries)) == ("", 5, 1)
    assert played.transcript.stop_reason is StopReason.ANSWERED and not played.transcript.format.ok


def test_flashrag_keeps_to_the_budget_of_searches(play: Play) -> None:
    assert len(play(FLASHRAG, *[FIRST, " x"] * 3, max_searches=2).queries) == 2

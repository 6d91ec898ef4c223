"""ReAct: what each action shows, what it costs, and how an episode ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from search_agents.engines.scripted import ScriptedEngine
from search_agents.methods import Setting, make_method
from search_agents.methods.react import TitleLookup

from search_env.retrieval.base import InMemoryRetriever
from search_env.types import Document, StopReason, Transcript

PAGES = (
    ("Lake Ondo", "Lake Ondo is deep. It lies in Varr. It froze once. Fish live there. It is old. Ships sank there."),
    ("Varr", "Varr is a land. Its mayor </answer> is Kes."),
    ("Varr", "Varr has one lake."),
    ("The lakes of Varr", "There are several."),
)


@pytest.fixture
def play(make_page_setting: Callable[..., Setting]) -> Callable[..., tuple[Transcript, list[str], Any]]:
    def run(said: Sequence[str], env: dict[str, Any] | None = None, **options: Any) -> Any:
        prompts: list[str] = []
        script = iter(said)

        def reply(prompt: str) -> str:
            prompts.append(prompt)
            return next(script, "")

        setting = make_page_setting(ScriptedEngine(reply), PAGES, env=env)
        method = make_method({"name": "react", **options}, setting)
        (transcript,) = method.run(setting.env.dataset.questions)
        return transcript, prompts, setting.env.retriever

    return run


def observations(transcript: Transcript) -> list[str]:
    return [call.text for turn in transcript.turns for call in turn.calls if call.purpose == "observation"]


def calls(transcript: Transcript) -> list[str]:
    return [call.purpose for turn in transcript.turns for call in turn.calls if call.prompt_tokens]


def test_a_title_is_looked_up_and_its_first_sentences_shown_until_the_model_finishes(play: Any) -> None:
    transcript, prompts, retriever = play(
        [" I look.\nAction 1: Search[lake  ONDO]\nObservation", " Found it.\nAction 2: Finish[Varr]"]
    )
    assert transcript.answer == "Varr" and transcript.stop_reason is StopReason.ANSWERED
    assert observations(transcript) == [
        "Lake Ondo is deep. It lies in Varr. It froze once. Fish live there. It is old."
    ]
    assert prompts[1].endswith(
        "Where is it?\nThought 1: I look.\nAction 1: Search[lake ONDO]\nObservation 1: "
        f"{observations(transcript)[0]}\nThought 2:"
    )
    assert retriever.queries == [], "a title needs no search engine"
    assert transcript.queries == ("lake ONDO",) and calls(transcript) == ["thought and action"] * 2


def test_what_is_no_title_is_searched_for_and_the_nearest_page_opened(play: Any) -> None:
    transcript, _, retriever = play(
        ["x\nAction 1: Search[deep lake]", "x\nAction: lookup[FISH]", "x\nAction: Finish[a]"]
    )
    shown, looked_up = observations(transcript)
    assert shown.startswith("There is no page deep lake. The nearest is Lake Ondo: Lake Ondo is deep.")
    assert looked_up == "(Result 1 / 1) Fish live there." and retriever.queries == ["deep lake"]


def test_similar_titles_are_all_that_is_shown_where_that_is_wanted_and_the_open_page_stays(play: Any) -> None:
    said = [f"x\nAction: {action}" for action in ("Search[Varr]", "Search[deep lake]", "Lookup[mayor]", "Finish[a]")]
    transcript, *_ = play(said, fallback="titles")
    assert observations(transcript)[1:] == [
        "There is no page deep lake. Similar: Lake Ondo, Varr.",
        "(Result 1 / 1) Its mayor ‹/answer› is Kes.",
    ]


def test_a_page_is_all_passages_of_its_title_but_no_more_than_k(play: Any) -> None:
    said = ["x\nAction: Search[Varr]", "x\nAction: Finish[a]"]
    both, *_ = play(said)
    assert observations(both) == ["Varr is a land. Its mayor ‹/answer› is Kes. Varr has one lake."]
    assert [len(turn.hits) for turn in both.turns] == [2, 0]
    one, *_ = play(said, env={"top_k": 1})
    assert observations(one) == ["Varr is a land. Its mayor ‹/answer› is Kes."]


def test_lookup_goes_from_sentence_to_sentence_of_the_last_page(play: Any) -> None:
    actions = ["Lookup[there]", "Search[Lake Ondo]", *["Lookup[there]"] * 3, "Lookup[it]", "Finish[a]"]
    transcript, _, retriever = play([f"x\nAction: {action}" for action in actions])
    first, _, *looked_up = observations(transcript)
    assert first == "No more results.", "no page is open yet"
    assert looked_up == [
        "(Result 1 / 2) Fish live there.",
        "(Result 2 / 2) Ships sank there.",
        "No more results.",
        "(Result 1 / 3) It lies in Varr.",
    ]
    assert len(transcript.queries) == 1 and retriever.queries == []


def test_a_reply_without_an_action_is_asked_for_the_action_alone(play: Any) -> None:
    transcript, prompts, _ = play(["I wonder.\nAnd so on.", " Finish[yes]\nObservation"])
    assert transcript.answer == "yes" and calls(transcript) == ["thought and action", "action"]
    assert prompts[1].endswith("Thought 1: I wonder.\nAction 1:")


def test_an_action_that_is_none_is_told_so_and_costs_a_step(play: Any) -> None:
    said = ["x\nAction: Dance[now]", "x\nAction: Search[]", "x\nAction: Search[Varr"]
    transcript, *_ = play(said, max_steps=3)
    first, second, third = observations(transcript)
    assert first == second and first.startswith("That is no action.") and third.startswith("Varr is a land.")


def test_without_a_finish_there_is_no_answer_after_the_last_step(play: Any) -> None:
    transcript, prompts, _ = play(["x\nAction: Lookup[y]"] * 20)
    assert transcript.answer == "" and not transcript.format.ok and len(prompts) == 7
    assert len(play(["x\nAction: Lookup[y]"] * 20, env={"max_turns": 4})[1]) == 4


def test_beyond_the_budget_nothing_is_searched(play: Any) -> None:
    transcript, _, retriever = play(
        [*["x\nAction: Search[deep lake]"] * 3, "x\nAction: Finish[a]"], env={"max_searches": 2}
    )
    assert retriever.queries == ["deep lake"] * 2 and len(transcript.queries) == 2
    assert observations(transcript)[2] == "No further search is allowed. Finish with what is known."


def test_a_search_that_finds_nothing_says_so(play: Any) -> None:
    transcript, *_ = play(["x\nAction: Search[zebra]", "x\nAction: Finish[a]"])
    assert observations(transcript) == ["Nothing was found for zebra."]


def test_without_a_corpus_at_hand_the_title_is_looked_for_among_what_was_found() -> None:
    documents = [Document(id=str(n), title=title, text=text) for n, (title, text) in enumerate(PAGES)]
    inner = InMemoryRetriever(documents)
    query = "the lakes of varr"
    assert inner.search(["Varr is a land"], 4)[0][0].document.title == "Varr"
    found = TitleLookup(inner, []).search([query, "Varr"], 4)
    assert found[0][0].document.title == "The lakes of Varr"
    assert [hit.document.title for hit in found[1][:2]] == ["Varr", "Varr"]
    assert TitleLookup(inner, []).fingerprint == f"titles-{inner.fingerprint}"

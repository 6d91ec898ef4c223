"""IRCoT: one sentence a search, documents collected up to a cap, and a reader of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from search_agents.methods.ircot import is_inference

from search_env.types import Document, Hit

Play = Callable[..., Any]
ASKED = "Who is married to the performer of Green?"
ONE, TWO = "Green is by Steve Hillage.", "Steve Hillage is married to Miquette Giraudy."
STATED = "So the answer is: Steve."


def last_case(prompt: str) -> str:
    return prompt.rpartition("\n\n")[2]


def test_only_the_first_sentence_is_kept_and_is_the_next_query(play: Play) -> None:
    said = [f"{ONE} Red is by King Crimson.", f"{TWO} Too much.", f"{STATED} More.", "So the answer is: Miquette."]
    played = play("ircot", *said)
    assert played.queries == [ASKED, ONE, TWO]
    begun = [prompt.rpartition("Thoughts:")[2] for prompt in played.prompts]
    assert begun == ["", f" {ONE}", f" {ONE} {TWO}", ""]
    kept = [call.text for call in played.calls if call.purpose == "kept sentence"]
    assert kept == [ONE, TWO, STATED]
    assert "King Crimson" not in "".join(begun + played.queries)


def test_a_sentence_that_states_the_answer_ends_the_chain_and_the_reader_answers(play: Play) -> None:
    played = play("ircot", f"The answer is {ONE}", "Read. So the answer is: Miquette Giraudy.")
    assert (len(played.queries), len(played.prompts)) == (1, 2)
    assert played.purposes == ["next sentence", "kept sentence", "collected", "reader"]
    assert played.answer == "Miquette Giraudy"


def test_the_reader_sees_all_that_was_collected_and_nothing_of_the_chain(play: Play) -> None:
    played = play("ircot", ONE, "Blue is a colour.", STATED, "So the answer is: x", top_k=1)
    reader = last_case(played.prompts[-1])
    titles = [line.split(":")[0] for line in reader.splitlines()]
    assert titles == ["Passage 1, Steve Hillage", "Passage 2, Green", "Passage 3, Blue", "Question", "Thoughts"]
    assert reader.endswith(f"Question: {ASKED}\nThoughts:")
    assert [call.text for call in played.calls if call.purpose == "collected"] == [
        "3 documents: Steve Hillage; Green; Blue"
    ]


def test_the_direct_reader_answers_briefly(play: Play) -> None:
    played = play({"name": "ircot", "reader": "direct"}, STATED, " Miquette Giraudy\nmore")
    assert played.answer == "Miquette Giraudy" and "Thoughts:" not in played.prompts[-1]
    assert "Passage 1" in played.prompts[-1] and len(played.prompts) == 2


def test_documents_are_collected_once_and_no_more_than_the_cap(play: Play) -> None:
    many = [Document(id=f"{n:02}", title=f"T{n}", text=f"w{n} w{n + 1} w{n + 2} w{n + 3}") for n in range(40)]
    said = [f"w{n} w{n + 3} w{n + 6}." for n in range(0, 32, 4)]
    played = play("ircot", *said, "So the answer is: x", documents=many, top_k=6, max_searches=8)
    counts = [last_case(prompt).count("Passage ") for prompt in played.prompts]
    assert counts[-1] == counts[-2] == 15 and counts == sorted(counts)
    titles = [line.split(":")[0].split()[-1] for line in last_case(played.prompts[-1]).splitlines()[:15]]
    assert len(set(titles)) == 15
    few = play({"name": "ircot", "max_documents": 2}, *said, documents=many, top_k=6)
    assert max(last_case(prompt).count("Passage ") for prompt in few.prompts) == 2


@pytest.mark.parametrize(("spec", "budget", "sentences"), [("ircot", 20, 10), ("ircot", 8, 8), ("ircot", 0, 1)])
def test_sentences_and_searches_are_bounded(play: Play, spec: Any, budget: int, sentences: int) -> None:
    played = play(spec, *[ONE] * sentences, "So the answer is: x", max_searches=budget)
    assert (len(played.queries), len(played.prompts), played.answer) == (sentences, sentences + 1, "x")


def test_an_empty_continuation_ends_the_chain(play: Play) -> None:
    played = play("ircot", ONE, " ", "So the answer is: x")
    assert played.queries == [ASKED, ONE] and (len(played.prompts), played.answer) == (3, "x")


def test_an_inference_is_no_query(play: Play) -> None:
    played = play("ircot", "Thus it is Steve.", ONE, "Therefore he sings.", STATED)
    assert played.queries == [ASKED, ASKED, ONE, ONE]
    assert not any(map(is_inference, ("Sound is a wave.", "Hens lay eggs.", "That is a cat.")))
    assert all(map(is_inference, ("So, yes.", "That is, no.", "hence x", "He was 1,990 - 1,950 = 40 years old.")))


def test_the_number_of_documents_is_the_settings_unless_it_is_given(play: Play) -> None:
    assert play("ircot", STATED, top_k=2).retriever.asked == [(ASKED, 2)]
    assert play({"name": "ircot", "top_k": 6}, STATED, top_k=2).retriever.asked == [(ASKED, 6)]


def test_very_long_passages_are_cut(play: Play) -> None:
    long = [Document(id="1", title="Green", text=" ".join(f"n{n}" for n in range(400)))]
    (first, *_) = play("ircot", STATED, documents=long).prompts
    assert "n349" in first and "n350" not in first


# --- FlashRAG's ---

FLASHRAG = {"name": "ircot", "variant": "flashrag"}


class Graded:
    """Gives each query its own documents with their scores."""

    fingerprint = "graded"

    def __init__(self, found: dict[str, dict[str, float]]) -> None:
        self._found = found

    def search(self, queries: Sequence[str], top_k: int) -> list[tuple[Hit, ...]]:
        return [
            tuple(
                Hit(document=Document(id=name, title=name, text=f"about {name}"), score=score)
                for name, score in self._found[query].items()
            )
            for query in queries
        ]


def test_flashrag_merges_documents_by_their_best_score_and_shows_them_ascending(make_setting: Any) -> None:
    from search_agents.methods import make_method

    found = {ASKED: {"A": 9.0, "B": 5.0}, f"{ONE} {TWO}": {"B": 7.0, "C": 6.0, "A": 1.0}}
    setting = make_setting({"": [f"{ONE} {TWO}", STATED]}, retriever=Graded(found))
    (transcript,) = make_method(FLASHRAG, setting).run(setting.env.dataset.questions)
    first, second = (last_case(prompt) for prompt in setting.engine.prompts)
    assert first.startswith("Passage 1, A: about A\nPassage 2, B: about B\nQuestion:")
    assert second.startswith("Passage 1, C: about C\nPassage 2, B: about B\nPassage 3, A: about A\nQuestion:")
    assert transcript.queries == (ASKED, f"{ONE} {TWO}")  # whole thoughts, not their first sentences
    assert (transcript.answer, len(setting.engine.prompts)) == ("Steve.", 2)


def test_flashrag_without_the_closing_words_answers_with_all_it_thought(play: Play) -> None:
    played = play(FLASHRAG, ONE, TWO, "never asked for")
    assert played.answer == f"{ONE} {TWO}"
    assert (len(played.prompts), played.queries) == (2, [ASKED, ONE, TWO])
    assert play({**FLASHRAG, "max_iterations": 5}, *[ONE] * 9).answer == " ".join([ONE] * 5)
    assert len(play({**FLASHRAG, "max_iterations": 5}, *[ONE] * 9, max_searches=2).queries) == 2

"""Demonstrations follow the annotation in an order that can be followed, and only where it leads to the answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

from search_agents.engines.base import SamplingParams
from search_agents.learning.demonstrations import Demonstrator
from search_agents.rollout import Episode, Task, play

from search_env import Dataset
from search_env.dialects import DIALECTS
from search_env.types import Document, Hop, Question
from search_env.vector import SearchQAVectorEnv

PAGES = (
    Document(id="1", title="Green (album)", text="Green is an album by Steve Hillage, a performer."),
    Document(id="2", title="Steve Hillage", text="Steve Hillage has a spouse, Miquette Giraudy."),
    Document(id="3", title="Red", text="Red is an album."),
)
HOPS = (
    Hop(query="Green performer", answer="Steve Hillage"),
    Hop(query="Steve Hillage spouse", answer="Miquette Giraudy"),
)


def asked(text: str = "Who is the spouse of the performer of Green?", **known: Any) -> Question:
    return Question(id="q", text=text, answers=("Miquette Giraudy", "Giraudy"), **known)


def env_of(*questions: Question, **settings: Any) -> SearchQAVectorEnv:
    data = Dataset(name="albums", split="train", questions=questions, documents=PAGES)
    return SearchQAVectorEnv(1, dataset="custom", data=data, top_k=1, **settings)


def played(question: Question, env: SearchQAVectorEnv) -> Episode:
    engine = Demonstrator([question], env.retriever, env.rules, top_k=1)
    sampling = SamplingParams(max_tokens=engine.max_context)
    (episode,) = play(engine, env, [Task(0, 0, 0)], sampling=sampling, max_tokens=engine.max_context, chat=False)
    return episode


def queries(question: Question) -> tuple[str, ...] | None:
    """What is searched for in the demonstration of a question, if it has one."""
    episode = played(question, env_of(question))
    assert episode.metrics["em"] == bool(episode.transcript.queries)
    return episode.transcript.queries or None


@pytest.mark.parametrize("prompt", ["base", "bare"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_episode_is_right_in_every_dialect_and_says_what_it_looks_for(dialect: str, prompt: str) -> None:
    question = asked(decomposition=HOPS)
    env = env_of(question, dialect=dialect, prompt=prompt)
    episode = played(question, env)
    assert episode.metrics["em"] == 1 and episode.metrics["format_ok"], episode.transcript.format.problems
    assert episode.transcript.queries == ("Green performer", "Steve Hillage spouse")
    said = [segment.text for segment in episode.segments if segment.kind == "sampled"]
    thoughts = ("I need to find Green performer.", "Next I need to find Steve Hillage spouse.", "That is all I need.")
    assert all(thought in text for thought, text in zip(thoughts, said, strict=True))


def test_a_prompt_that_opens_no_reasoning_has_it_opened_by_the_first_segment(tmp_path: Path) -> None:
    file = tmp_path / "own.txt"
    file.write_text("Search and answer.\n{question}\n")
    question = asked(decomposition=HOPS)
    for dialect in DIALECTS:
        episode = played(question, env_of(question, dialect=dialect, prompt=file))
        assert episode.metrics["em"] == 1 and episode.metrics["format_ok"], (dialect, episode.transcript.format)


def test_blanks_and_tags_in_a_question_do_not_hide_its_demonstration() -> None:
    assert queries(asked("Who  is <answer> the spouse of\u00a0the performer of Green? ", decomposition=HOPS))


def test_a_question_without_a_demonstration_does_not_play_that_of_one_which_it_contains() -> None:
    shown, without = asked("Who?", decomposition=HOPS), asked("Who? Who? Who?")
    env = env_of(without)
    engine = Demonstrator([shown, without], env.retriever, env.rules, top_k=1)
    sampling = SamplingParams(max_tokens=engine.max_context)
    (episode,) = play(engine, env, [Task(0, 0, 0)], sampling=sampling, max_tokens=engine.max_context, chat=False)
    assert not episode.transcript.queries and episode.metrics["em"] == 0


def test_titles_that_the_question_names_are_looked_up_first() -> None:
    assert queries(asked(gold_titles=("Steve Hillage", "Green (album)"))) == ("Green (album)", "Steve Hillage")


def test_a_first_title_that_nothing_names_is_looked_for_with_the_question() -> None:
    text = "Who is the spouse of an album's performer?"
    assert queries(asked(text, gold_titles=("Green (album)", "Steve Hillage"))) == (text, "Steve Hillage")


def test_a_title_that_neither_the_question_nor_a_passage_names_has_no_demonstration() -> None:
    assert queries(asked(gold_titles=("Green (album)", "Red"))) is None
    assert queries(asked("Are Green and Red albums?", gold_titles=("Green (album)", "Red"))) == ("Green (album)", "Red")


@pytest.mark.parametrize(
    "known",
    [
        {"gold_titles": ("Green (album)", "Miquette Giraudy")},
        {"decomposition": (HOPS[0], Hop(query="Steve Hillage birthplace", answer="Chingford"))},
        {},
    ],
)
def test_what_is_not_found_or_not_annotated_has_no_demonstration_and_says_nothing(known: dict[str, Any]) -> None:
    question = asked(**known)
    assert queries(question) is None
    episode = played(question, env_of(question))
    assert episode.metrics["em"] == 0 and not episode.metrics["format_ok"]


def test_tags_in_an_annotation_are_inert() -> None:
    question = asked(decomposition=(Hop(query="Red </think><answer> album", answer="album"),))
    episode = played(question, env_of(question))
    assert episode.metrics["em"] == 1 and episode.metrics["format_ok"]
    assert len(episode.transcript.turns) == 2

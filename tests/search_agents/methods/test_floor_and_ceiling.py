"""The oracle reaches what corpus and retriever allow, the random agent next to nothing, both by real episodes."""

import pytest
from search_agents.evaluation.scorer import score
from search_agents.methods.floor_and_ceiling import Oracle, RandomAgent, hops_to_follow

from search_env import Dataset
from search_env.types import Document, Hop, Question, StopReason
from search_env.vector import SearchQAVectorEnv

PAGES = (
    Document(id="1", title="Green", text="Green is an album by Steve Hillage, a performer. He has a spouse."),
    Document(id="2", title="Steve Hillage", text="His spouse is Miquette Giraudy."),
    Document(id="3", title="Red", text="Red is an album."),
)
HOPS = (
    Hop(query="Green performer", answer="Steve Hillage"),
    Hop(query="Steve Hillage spouse", answer="Miquette Giraudy"),
)
ASKED = "Who is the spouse of the performer of Green?"


def play(question, kind=Oracle, pages=PAGES, **settings):
    data = Dataset(name="albums", split="dev", questions=(question,), documents=pages)
    env = SearchQAVectorEnv(2, data=data, dataset="custom", **settings)
    (transcript,) = kind(env).run([question])
    return transcript


def asked(**known):
    return Question(id="q", text=ASKED, answers=("Miquette Giraudy", "Giraudy"), **known)


@pytest.mark.parametrize("dialect", ["r1-searcher", "r1-searcher-pipes", "search-r1", "research"])
@pytest.mark.parametrize("prompt", ["base", "bare"])
def test_the_oracle_follows_the_hops_and_keeps_the_format(dialect, prompt):
    transcript = play(asked(decomposition=HOPS), dialect=dialect, prompt=prompt)
    assert transcript.queries == ("Green performer", "Steve Hillage spouse")
    assert (transcript.answer, transcript.stop_reason) == ("Miquette Giraudy", StopReason.ANSWERED)
    assert transcript.format.ok, transcript.format.problems


def test_a_hop_that_the_corpus_lacks_is_not_answered():
    assert play(asked(decomposition=HOPS), pages=PAGES[::2]).answer == "not found"


def test_without_a_decomposition_each_gold_title_must_be_found():
    assert play(asked(gold_titles=("Green", "Steve Hillage"))).queries == ("Green", "Steve Hillage")
    assert play(asked(gold_titles=("Green", "Steve Hillage"))).answer == "Miquette Giraudy"
    assert play(asked(gold_titles=("Green", "Giraudy"))).answer == "not found"


def test_a_question_without_either_is_asked_as_it_stands():
    transcript = play(asked())
    assert transcript.queries == (ASKED,)
    assert hops_to_follow(transcript.question) == (Hop(query=ASKED, answer="Miquette Giraudy"),)


def test_the_random_agent_searches_for_the_questions_words_and_is_the_same_each_time():
    transcript = play(asked(), RandomAgent)
    assert set(transcript.queries[0].split()) <= set(ASKED.split())
    assert transcript.answer in {"nothing", *(page.title for page in PAGES)} and transcript.format.ok
    assert play(asked(), RandomAgent) == transcript


def test_on_fictional_wiki_the_oracle_answers_nearly_all_and_the_random_agent_nearly_nothing():
    env = SearchQAVectorEnv(64, dataset="fictional-wiki", split="test", top_k=3)
    questions = env.dataset.questions
    assert score(list(Oracle(env).run(questions))).to_dict()["em"] >= 0.95
    assert score(list(RandomAgent(env).run(questions))).to_dict()["em"] <= 0.05

"""The functions that TRL offers the model; no TRL is needed for them."""

from __future__ import annotations

import pytest

from search_env.interop.trl import environment_factory, question_rows

ENV = "SearchQA-FictionalWiki-v0"


def make(**settings):
    return environment_factory(ENV, **settings)()


def gold(tools):
    return tools._env.transcript.question.answers[0]


@pytest.mark.parametrize("dialect", ["search-r1", "r1-searcher"])
def test_calls_earn_what_the_segments_that_mean_the_same_earn(dialect):
    tools = make(dialect=dialect, reward="stage2")
    question = tools.reset(question=4)
    assert question == tools._env.transcript.question.text
    assert "Title" in tools.search("a film") or "(1)" in tools.search("a film")
    assert tools.answer(gold(tools)) == "The episode has ended. Write no further call."
    assert tools.get_reward() == 1.0, tools._env.transcript.format.problems


def test_the_budget_of_searches_ends_the_episode():
    tools = make(max_searches=1, reward={"search_cost": 1.0})
    tools.reset(question=0)
    assert "Doc 1(Title:" in tools.search("film")
    assert tools.search("film") == tools.search("film") == "The episode has ended. Write no further call."
    assert tools.get_reward() == -1.0


def test_a_rollout_without_an_answer_is_judged_as_that():
    tools = make(reward="stage2")
    tools.reset(question=0)
    tools.search("film")
    assert tools.get_reward() == -2.0


def test_a_failed_search_leaves_no_reward_and_tells_the_model_nothing(settings, watched_retriever):
    tools = make(**settings)
    tools.reset(question="munch")
    watched_retriever.broken = True
    told = tools.search("capital of Norway")
    assert told == "The episode has ended. Write no further call."
    assert tools.get_reward() is None
    assert tools.answer(gold(tools)) == told
    assert tools.get_reward() is None
    watched_retriever.broken = False
    tools.reset(question="munch")
    tools.answer("Oslo")
    assert tools.get_reward() == 1.0


def test_words_of_a_call_cannot_open_or_close_a_tag():
    tools = make()
    tools.reset(question=0)
    tools.search(f"film </search> <answer> {gold(tools)} </answer>")
    assert len(tools._env.transcript.queries) == 1
    assert tools._env.transcript.answer is None


def test_there_is_a_row_for_each_question():
    rows = question_rows(ENV)
    tools = make()
    assert len({row["question"] for row in rows}) == len(rows) > 100
    assert tools.reset(**rows[7]).endswith("?")
    assert tools._env.transcript.question.id == rows[7]["question"]


def test_rollouts_do_not_mix():
    one, other = (environment := environment_factory(ENV))(), environment()
    one.reset(question=0)
    other.reset(question=1)
    one.answer(gold(one))
    other.answer("nobody")
    assert (one.get_reward(), other.get_reward()) == (1.0, 0.0)

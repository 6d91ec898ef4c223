"""Too much of anything ends an episode with a reason, and a long run needs no more memory than a short one."""

from __future__ import annotations

import gc
import tracemalloc

import pytest

pytest.importorskip("torch")

from search_agents.engines.base import SamplingParams
from search_agents.engines.scripted import ScriptedEngine
from search_agents.rollout import Task, collect, collect_async

from search_env import SearchQAEnv, SearchQAVectorEnv
from search_env.datasets import Dataset
from search_env.errors import ConfigError
from search_env.retrieval.base import InMemoryRetriever
from search_env.types import Document, Question, StopReason

SEARCH = "<begin_of_query> Norway <end_of_query>"
PROMPT = len("Question: \n<think>")
"""Tokens of the prompt of an empty question; the scripted engine's tokens are bytes."""
ANSWER = "</think> <answer> Oslo </answer>"


def make(text="Its capital is Oslo.", question="Capital of Norway?", **settings):
    documents = (Document(id="1", title="Norway", text=text),)
    questions = (Question(id="q", text=question, answers=("Oslo",)),)
    dataset = Dataset(name="tiny", split="dev", questions=questions, documents=documents)
    return {"dataset": dataset, "retriever": InMemoryRetriever(documents), "prompt": "bare", **settings}


def play(segment, **settings):
    """Say one thing until the episode is over; how often, and why it was over."""
    env = SearchQAEnv(**make(**settings))
    env.reset(seed=0)
    for said in range(1, 2000):
        observation, reward, terminated, truncated, info = env.step(segment)
        assert env.observation_space.contains(observation) and not terminated
        if truncated:
            return said, info["stop_reason"], reward
    raise AssertionError("it goes on for ever")


def test_a_thousand_searches_end_with_a_reason():
    """Risk 21: a model that never stops searching."""
    assert play(SEARCH, max_searches=8, max_turns=2000)[:2] == (9, "max_searches")
    assert play(SEARCH, max_searches=2000, max_turns=12)[:2] == (12, "max_turns")
    said, reason, _ = play(SEARCH, max_searches=2000, max_turns=2000, max_chars=10_000)
    assert 10 < said < 1000 and reason == "max_chars"
    said, reason, _ = play(SEARCH, max_searches=1000, max_turns=2000, max_chars=10**6)
    assert (said, reason) == (1001, "max_searches")


@pytest.mark.parametrize("what", ["document", "query"])
def test_a_megabyte_ends_an_episode_with_a_reason(what):
    """Risk 21: a document and a segment that are larger than the whole budget."""
    if what == "document":
        said, reason, reward = play(SEARCH, text="Norway " * 150_000)
    else:
        said, reason, reward = play(f"<begin_of_query> {'Norway ' * 150_000} <end_of_query>")
    assert (said, reason) == (1, "max_chars") and reward <= 0


def test_a_long_question_is_asked_whole():
    """Risk 21: a question of 100,000 characters."""
    env = SearchQAEnv(**make(question="Norway? " * 12_500))
    observation, _ = env.reset(seed=0)
    assert env.observation_space.contains(observation) and len(observation) > 99_000
    assert env.step(ANSWER)[2]


@pytest.mark.parametrize(("text", "budget"), [("x " * 5000, 500), ("x " * 5000, 90), ("x", 60)])
def test_tokens_that_do_not_fit_end_an_episode_with_a_reason(text, budget):
    """Risk 21: documents beyond the runner's budget of tokens."""
    env = SearchQAVectorEnv(1, **make(text=text))
    engine = ScriptedEngine({"": [SEARCH, SEARCH, ANSWER]})
    sampling = SamplingParams(max_tokens=100)
    (episode,) = collect(engine, env, [Task(0, 0, 0)], sampling=sampling, max_tokens=budget, chat=False)
    assert episode.stop_reason is StopReason.MAX_TOKENS and episode.valid
    assert len(episode.token_ids) <= budget


@pytest.mark.parametrize("play", [collect, collect_async])
@pytest.mark.parametrize("slots", [1, 2, 8])
def test_a_question_beyond_the_budget_of_tokens_is_a_truncated_episode_and_the_others_are_as_without_it(play, slots):
    """Risk 21: a question of a megabyte among others, and one that leaves no room for a single token."""
    documents = (Document(id="1", title="Norway", text="Its capital is Oslo."),)
    ask = {"fits": "Norway?", "huge": "Peru? " * 175_000, "too": "Norway too?", "just": "x" * (200 - PROMPT)}
    questions = tuple(Question(id=each, text=text, answers=("Oslo",)) for each, text in ask.items())
    dataset = Dataset(name="tiny", split="dev", questions=questions, documents=documents)
    env = SearchQAVectorEnv(slots, dataset=dataset, retriever=InMemoryRetriever(documents), prompt="bare")

    def episodes(*asked):
        tasks = [Task(question, group, seed=group) for group, question in asked]
        engine = ScriptedEngine({"Norway": [SEARCH, ANSWER]})
        return play(engine, env, tasks, sampling=SamplingParams(max_tokens=100), max_tokens=200, chat=False)

    fits, huge, too, just = episodes((0, "fits"), (1, "huge"), (2, "too"), (3, "just"))
    for episode in (huge, just):
        assert episode.stop_reason is StopReason.MAX_TOKENS and episode.valid
        assert len(episode.token_ids) == 200 and not episode.action_mask.any()
        assert (episode.metrics["f1"], episode.metrics["searches"], episode.transcript.turns) == (0.0, 0.0, ())
        assert episode.reward_parts.keys() == fits.reward_parts.keys() and episode.reward <= 0
    assert [fits, too] == episodes((0, "fits"), (2, "too"))
    assert fits.stop_reason is too.stop_reason is StopReason.ANSWERED


@pytest.mark.parametrize("play", [collect, collect_async])
def test_a_budget_that_not_even_an_empty_question_fits_into_is_a_mistake_in_the_config(play):
    """Risk 21: the setting is wrong, and not the question."""
    env, engine = SearchQAVectorEnv(2, **make()), ScriptedEngine({"": [ANSWER]})
    settings = {"sampling": SamplingParams(max_tokens=5), "chat": False}
    with pytest.raises(ConfigError, match=f"leave room within the budget of {PROMPT} tokens"):
        play(engine, env, [Task(0, 0, 0)], max_tokens=PROMPT, **settings)
    (episode,) = play(engine, env, [Task(0, 0, 0)], max_tokens=PROMPT + 1, **settings)
    assert episode.stop_reason is StopReason.MAX_TOKENS
    with pytest.raises(ConfigError, match="exceeds the model's context"):
        play(engine, env, [Task(0, 0, 0)], max_tokens=engine.max_context + 1, **settings)


def memory_after(episodes):
    """Bytes that are held after so many episodes."""
    env = SearchQAVectorEnv(8, **make())
    for _ in range(episodes // 8):
        env.reset(seed=0)
        env.step([SEARCH] * 8)
        env.step([ANSWER] * 8)
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def check_memory(episodes):
    tracemalloc.start()
    try:
        few = memory_after(80)
        many = memory_after(episodes)
    finally:
        tracemalloc.stop()
    assert many - few < 200_000


def test_memory_stays_flat_over_a_thousand_episodes():
    """Risk 21: a leak."""
    check_memory(1000)


@pytest.mark.soak
def test_memory_stays_flat_over_ten_thousand_episodes():
    """Risk 21: a slow leak."""
    check_memory(10_000)

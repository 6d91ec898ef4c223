from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import pytest
from search_agents.engines.base import SamplingParams
from search_agents.engines.kv_cache import RaggedKVCache
from search_agents.engines.scripted import ScriptedEngine, ScriptedSession
from search_agents.engines.slots import Slots
from search_agents.engines.transformers import TransformersEngine
from search_agents.rollout import Episode, Task, collect, collect_async, play

from search_env import SearchQAVectorEnv
from search_env.datasets import Dataset
from search_env.errors import ConfigError, RetrieverUnavailable
from search_env.retrieval.base import InMemoryRetriever
from search_env.retrieval.metering import record
from search_env.types import Document, Question, Spending, StopReason

DOCUMENTS = (
    Document(id="1", title="Norway", text="Its capital is Oslo."),
    Document(id="2", title="Peru", text="Its capital is Lima."),
)
QUESTIONS = (
    Question(id="norway", text="Capital of Norway?", answers=("Oslo",), kind="bridge", hops=1),
    Question(id="peru", text="Capital of Peru?", answers=("Lima",), hops=2),
    Question(id="mars", text="Capital of Mars?", answers=("none",)),
    Question(id="chad", text="Capital of Chad?", answers=("N'Djamena",)),
)
SEARCH = "<begin_of_query> Norway <end_of_query>"
ANSWER = "</think> <answer> Oslo </answer>"
SCRIPTS = {
    "Norway": [SEARCH, ANSWER],
    "Peru": ["<begin_of_query> Peru <end_of_query>", "<begin_of_query> capital <end_of_query>", ANSWER],
    "Mars": ["no idea"],
    "Chad": ["<begin_of_query> broken <end_of_query>", ANSWER],
}


class Slow(InMemoryRetriever):
    """Waits, counts its calls, breaks on queries with the word broken in them, and may cost something."""

    def __init__(self, wait: Callable[[], Any] = lambda: None, *, calls_cost: bool = False) -> None:
        super().__init__(DOCUMENTS)
        self.wait, self.calls_cost = wait, calls_cost
        self.calls: list[list[str]] = []
        self.threads: set[str] = set()

    def search(self, queries: Sequence[str], top_k: int) -> Any:
        self.calls.append(list(queries))
        self.threads.add(threading.current_thread().name)
        self.wait()
        if any("broken" in query for query in queries):
            raise RetrieverUnavailable("the index is gone")
        if self.calls_cost:
            record("paid", {query: Spending(calls=1) for query in queries})
        return super().search(queries, top_k)


class Watched(ScriptedEngine):
    """Opens a gate when it has written so many segments; `written` holds their rows."""

    def __init__(self, opens_after: int) -> None:
        super().__init__(SCRIPTS)
        self.opens_after, self.gate = opens_after, threading.Event()
        self.written: list[int] = []

    def open(self, prompts: Any, *, seeds: Any, max_tokens: int) -> ScriptedSession:
        engine = self

        class Session(ScriptedSession):
            def step(self) -> Any:
                ended = super().step()
                engine.written.extend(row for row, _ in ended)
                if len(engine.written) >= engine.opens_after:
                    engine.gate.set()
                return ended

        return Session([self._script(prompt) for prompt in prompts], prompts, max_tokens)


def make_env(num_envs: int = 3, retriever: Any = None, **settings: Any) -> SearchQAVectorEnv:
    dataset = Dataset(name="tiny", split="dev", questions=QUESTIONS, documents=DOCUMENTS)
    defaults = {"prompt": "bare", "top_k": 1, "reward": "stage2"}
    return SearchQAVectorEnv(num_envs, dataset=dataset, retriever=retriever or Slow(), **{**defaults, **settings})


def both(env: SearchQAVectorEnv, *questions: int, **more: Any) -> tuple[list[Episode], list[Episode]]:
    """The same tasks asynchronously and in turns."""
    tasks = [Task(question, group, seed=group) for group, question in enumerate(questions)]
    settings = {"sampling": SamplingParams(max_tokens=200), "max_tokens": 2000, "chat": False} | more
    engine = ScriptedEngine(SCRIPTS)
    return collect_async(engine, env, tasks, **settings), collect(engine, env, tasks, **settings)


@pytest.mark.parametrize("num_envs", [1, 2, 5, 16])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"max_searches": 1},
        {"max_turns": 2},
        {"max_chars": 120},
        {"reward": "stage1"},
        {"dialect": "search-r1"},
    ],
    ids=str,
)
def test_the_episodes_are_those_played_in_turns(num_envs: int, settings: dict[str, Any]) -> None:
    apart, in_turns = both(make_env(num_envs, **settings), 1, 0, 2, 0, 1, 1, 2)
    assert apart == in_turns


@pytest.mark.parametrize("max_tokens", range(40, 200, 7))
def test_a_spent_budget_of_tokens_ends_them_alike(max_tokens: int) -> None:
    apart, in_turns = both(make_env(), 1, 0, 2, max_tokens=max_tokens)
    assert apart == in_turns
    if max_tokens < 60:
        assert apart[0].stop_reason is StopReason.MAX_TOKENS


def test_a_forced_beginning_is_treated_alike() -> None:
    apart, in_turns = both(make_env(), 0, 2, prefill="<begin_of_query>")
    assert apart == in_turns and apart[1].transcript.segments[0].startswith("<begin_of_query>")


def test_an_episode_whose_search_failed_for_good_is_invalid_and_the_others_go_on() -> None:
    invalid, answered, unfinished = both(make_env(num_envs=1), 3, 0, 2)[0]
    assert (invalid.valid, invalid.stop_reason, invalid.reward) == (False, StopReason.RETRIEVER_UNAVAILABLE, 0.0)
    assert (answered.valid, answered.reward) == (True, 1.0)
    assert unfinished.stop_reason is StopReason.MALFORMED


def test_an_episode_that_waits_for_its_search_holds_up_nobody() -> None:
    engine = Watched(opens_after=5)
    tasks = [Task(question, group, seed=0) for group, question in enumerate((0, 2, 2, 2, 2))]
    settings: dict[str, Any] = {"sampling": SamplingParams(max_tokens=200), "max_tokens": 2000, "chat": False}
    episodes = collect_async(engine, make_env(2, Slow(lambda: engine.gate.wait(30))), tasks, **settings)
    assert [episode.question_id for episode in episodes] == ["norway", "mars", "mars", "mars", "mars"]
    # All others came and went in the second slot while the first waited for its search.
    assert engine.written == [0, 1, 2, 3, 4, 0]


def test_searches_run_in_other_threads_and_those_that_wait_are_one_batch() -> None:
    engine, four_threads = Watched(opens_after=8), threading.Barrier(4)

    def wait() -> None:
        if len(retriever.calls) <= 4:
            four_threads.wait(30)
        engine.gate.wait(30)

    retriever = Slow(wait)
    tasks = [Task(0, group, seed=0) for group in range(8)]
    collect_async(
        engine, make_env(8, retriever), tasks, sampling=SamplingParams(max_tokens=200), max_tokens=2000, chat=False
    )
    assert threading.current_thread().name not in retriever.threads and len(retriever.threads) == 4
    # Four threads take one query each, and the others wait together.
    assert [len(queries) for queries in retriever.calls] == [1, 1, 1, 1, 4]


def test_what_searches_spend_is_counted_where_it_was_spent() -> None:
    apart, in_turns = both(make_env(2, Slow(calls_cost=True)), 1, 0)
    assert [episode.transcript.spending["paid"].calls for episode in apart] == [2, 1]
    assert apart == in_turns


def test_an_error_of_the_retriever_reaches_the_caller_and_leaves_no_segment_behind() -> None:
    class Wrong(Slow):
        def search(self, queries: Sequence[str], top_k: int) -> Any:
            raise KeyError("a defect")

    closed = []

    class Session(ScriptedSession):
        def close(self) -> None:
            super().close()
            closed.append(self)

    class Engine(ScriptedEngine):
        def open(self, prompts: Any, *, seeds: Any, max_tokens: int) -> Session:
            return Session([self._script(prompt) for prompt in prompts], prompts, max_tokens)

    with pytest.raises(KeyError, match="a defect"):
        collect_async(
            Engine(SCRIPTS),
            make_env(4, Wrong()),
            [Task(0, group, seed=0) for group in range(4)],
            sampling=SamplingParams(max_tokens=200),
            max_tokens=2000,
            chat=False,
        )
    assert len(closed) == 1 and not closed[0]._begun


def test_what_cannot_be_played_is_said() -> None:
    assert both(make_env())[0] == []
    with pytest.raises(ConfigError, match="raise the budget"):
        both(make_env(), 0, max_tokens=15)


def test_a_real_model_writes_the_same_in_turns_and_each_episode_in_its_own_time(
    talkative: Any, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    reserved, released = [], []
    reserve, release = RaggedKVCache.reserve, Slots.release
    monkeypatch.setattr(RaggedKVCache, "reserve", lambda cache, slots: (reserved.append(slots), reserve(cache, slots)))
    monkeypatch.setattr(Slots, "release", lambda slots, row: (released.append(row), release(slots, row)))
    tasks = [Task(number % 2, number // 4, seed=number) for number in range(24)]
    bounds: dict[str, Any] = {"sampling": SamplingParams(max_tokens=25), "max_tokens": 500, "chat": False}
    bounds["prefill"] = "<begin_of_query>"
    played = {
        (continuous, seconds): play(
            TransformersEngine(talkative, tokenizer, continuous=continuous),
            make_env(5, Slow(partial(time.sleep, seconds))),
            tasks,
            **bounds,
        )
        for continuous, seconds in ((False, 0.0), (True, 0.0), (True, 0.02))
    }
    in_turns = played.pop((False, 0.0))
    assert sum(len(episode.transcript.queries) for episode in in_turns) > 10
    for apart in played.values():
        for one, other in zip(apart, in_turns, strict=True):
            assert one.token_ids.tolist() == other.token_ids.tolist() and one.transcript == other.transcript
            np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-4)
    # No more places are held than there are episodes in play.
    assert max(reserved) == 5 and sorted(set(released)) == list(range(24))


def test_an_engine_on_a_cpu_plays_in_turns_unless_it_is_told_otherwise(talkative: Any, tokenizer: Any) -> None:
    assert not TransformersEngine(talkative, tokenizer).continuous
    assert TransformersEngine(talkative, tokenizer, continuous=True).continuous
    talkative.to("meta")  # stands for any device that is not the CPU
    assert TransformersEngine(talkative, tokenizer).continuous


def test_play_lets_an_engine_that_can_play_apart_do_so(monkeypatch: pytest.MonkeyPatch) -> None:
    retriever = Slow()
    settings: dict[str, Any] = {"sampling": SamplingParams(max_tokens=200), "max_tokens": 2000, "chat": False}
    tasks = [Task(0, 0, seed=0), Task(1, 1, seed=0)]
    able, unable = ScriptedEngine(SCRIPTS), ScriptedEngine(SCRIPTS)
    abilities = able.capabilities - {"asynchronous"}
    apart = play(able, make_env(2, retriever), tasks, **settings)
    assert threading.current_thread().name not in retriever.threads
    with monkeypatch.context() as patch:
        patch.setattr(ScriptedEngine, "capabilities", abilities)
        assert play(unable, make_env(2, retriever), tasks, **settings) == apart
    assert threading.current_thread().name in retriever.threads

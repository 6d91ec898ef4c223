"""Episodes that an outage ended: counted, and left out of scores and group baselines."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from search_agents.engines.base import SamplingParams
from search_agents.engines.scripted import ScriptedEngine
from search_agents.evaluation.scorer import score
from search_agents.learning.advantages import group_baseline
from search_agents.learning.episode_metrics import episode_metrics, reward_part_means
from search_agents.rollout import Episode, Task, collect

from search_env import SearchQAVectorEnv
from search_env.datasets import Dataset
from search_env.errors import RetrieverUnavailable
from search_env.retrieval.base import InMemoryRetriever
from search_env.retrieval.resilience import ResilientRetriever, ResilientSettings
from search_env.types import Document, Question, StopReason

DOCUMENTS = (Document(id="1", title="Norway", text="Its capital is Oslo."),)
QUESTIONS = (
    Question(id="norway", text="Capital of Norway?", answers=("Oslo",)),
    Question(id="peru", text="Capital of Peru?", answers=("Lima",)),
)
SEARCH = "<begin_of_query> Norway <end_of_query>"
SECRET = "502 Bad Gateway at 10.0.0.7"


class Timer:
    """Only pauses take time."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds

    def wait(self, ready: Any, seconds: float) -> bool:
        return bool(ready(60))


class DownFor(InMemoryRetriever):
    """Answers its first search and is down for a while from then on."""

    def __init__(self, timer: Timer, seconds: float) -> None:
        super().__init__(DOCUMENTS)
        self.timer, self.seconds, self.asked = timer, seconds, 0

    def search(self, queries: Any, top_k: int) -> Any:
        self.asked += 1
        if self.asked > 1 and self.timer.time < self.seconds:
            raise RetrieverUnavailable(SECRET, transient=True)
        return super().search(queries, top_k)


def play(seconds: float) -> list[Episode]:
    """Two groups of two: the first group's episodes search once, the second's twice."""
    timer = Timer()
    settings = ResilientSettings(of="service", breaker_failures=1000)
    retriever = ResilientRetriever(DownFor(timer, seconds), settings, timer)
    dataset = Dataset(name="tiny", split="dev", questions=QUESTIONS, documents=DOCUMENTS)
    env = SearchQAVectorEnv(4, dataset=dataset, retriever=retriever, prompt="bare", top_k=1, reward="stage2")
    scripts = {
        "Norway": [SEARCH, "</think> <answer> Oslo </answer>"],
        "Peru": [SEARCH, SEARCH, "</think> <answer> Lima </answer>"],
    }
    tasks = [Task("norway", 0, 0), Task("norway", 0, 1), Task("peru", 1, 2), Task("peru", 1, 3)]
    sampling = SamplingParams(max_tokens=200)
    return collect(ScriptedEngine(scripts), env, tasks, sampling=sampling, max_tokens=2000, chat=False)


def test_an_outage_within_the_deadline_changes_no_episode() -> None:
    """Risk 10: an outage that passes."""
    assert play(seconds=30) == play(seconds=0)
    assert all(episode.valid for episode in play(seconds=30))


def test_an_outage_that_lasts_is_counted_and_nothing_else() -> None:
    """Risk 10: an outage that lasts is no reward of 0 and no text that the model reads."""
    episodes = play(seconds=np.inf)
    assert [episode.valid for episode in episodes] == [True, True, False, False]
    assert {episode.stop_reason for episode in episodes[2:]} == {StopReason.RETRIEVER_UNAVAILABLE}
    assert SECRET not in str(episodes)
    metrics = episode_metrics(episodes)
    assert (metrics["invalid"], metrics["f1"], metrics["episode_return_mean"]) == (0.5, 1.0, episodes[0].reward)
    assert reward_part_means(episodes)["f1"] == 1.0
    scores = score([episode.transcript for episode in episodes])
    assert (scores.n, scores.invalid, scores.f1) == (2, 2, 1.0)


def test_a_group_that_lost_an_episode_has_the_baseline_of_the_others() -> None:
    """Risk 10: an invalid episode is no part of its group's baseline."""
    rewards, groups, valid = np.array([1.0, 0.5, 0.0, 2.0]), [0, 0, 0, 1], [True, True, False, True]
    kept = [index for index, is_valid in enumerate(valid) if is_valid]
    assert group_baseline(rewards[kept], [groups[index] for index in kept]) == pytest.approx([0.75, 0.75, 2.0])

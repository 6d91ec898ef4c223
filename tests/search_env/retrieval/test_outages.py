"""A service that fails, from its error to the end of the episode: nothing of it may reach the model or a score."""

import numpy as np
import pytest

from search_env import SearchQAEnv, SearchQAVectorEnv
from search_env.datasets import Dataset
from search_env.errors import RetrieverUnavailable
from search_env.retrieval.base import InMemoryRetriever
from search_env.retrieval.cassette import RecordingRetriever, ReplayRetriever
from search_env.retrieval.resilience import ResilientRetriever, ResilientSettings
from search_env.types import Document, Question, StopReason

DOCUMENTS = (
    Document(id="1", title="Norway", text="Its capital is Oslo."),
    Document(id="2", title="Peru", text="Its capital is Lima."),
)
QUESTIONS = (
    Question(id="norway", text="Capital of Norway?", answers=("Oslo",)),
    Question(id="peru", text="Capital of Peru?", answers=("Lima",)),
)
NORWAY = "<begin_of_query> Norway <end_of_query>"
PERU = "<begin_of_query> Peru <end_of_query>"
OSLO = "</think> <answer> Oslo </answer>"
SECRET = "502 Bad Gateway at 10.0.0.7"


class Timer:
    """Only pauses take time."""

    def __init__(self):
        self.time = 0.0

    def now(self):
        return self.time

    def sleep(self, seconds):
        self.time += seconds

    def wait(self, ready, seconds):
        return ready(60)


class Breaking(InMemoryRetriever):
    """Is down up to a moment."""

    def __init__(self, timer):
        super().__init__(DOCUMENTS)
        self.timer, self.down_until, self.batches = timer, 0.0, []

    def search(self, queries, top_k):
        self.batches.append(list(queries))
        if self.timer.time < self.down_until:
            raise RetrieverUnavailable(SECRET, transient=True)
        return super().search(queries, top_k)


@pytest.fixture
def timer():
    return Timer()


@pytest.fixture
def service(timer):
    return Breaking(timer)


@pytest.fixture
def settings(service, timer):
    """Of an environment whose searches have a minute, with the breaker out of the way."""
    bounds = ResilientSettings(of="service", breaker_failures=1000)
    dataset = Dataset(name="tiny", split="dev", questions=QUESTIONS, documents=DOCUMENTS)
    retriever = ResilientRetriever(service, bounds, timer)
    return {"dataset": dataset, "retriever": retriever, "top_k": 1, "reward": "stage1"}


def test_an_outage_within_the_deadline_changes_nothing_in_the_episode(settings, service):
    def play(down_for):
        env = SearchQAEnv(**settings)
        service.down_until = service.timer.time + down_for
        log = [env.reset(seed=3, options={"question": "norway"})]
        log += [env.step(segment) for segment in (NORWAY, PERU, OSLO)]
        return log, env.transcript

    assert play(down_for=30) == play(down_for=0)
    assert len(service.batches) > 4


def test_a_vector_step_is_tried_again_whole_and_loses_no_episode(settings, service):
    envs = SearchQAVectorEnv(2, **settings)
    envs.reset(options={"question": ["norway", "peru"]})
    service.down_until = 20.0
    observations, _, _, truncations, infos = envs.step([NORWAY, PERU])
    assert "Oslo" in observations[0] and "Lima" in observations[1]
    assert not truncations.any() and infos["valid"].tolist() == [1.0, 1.0]
    assert len(service.batches) > 2 and all(batch == ["Norway", "Peru"] for batch in service.batches)


def test_an_outage_that_lasts_leaves_a_single_episode_as_it_was(settings, service):
    env = SearchQAEnv(**settings)
    env.reset(options={"question": "norway"})
    env.step(NORWAY)
    before = env.transcript
    service.down_until = float("inf")
    with pytest.raises(RetrieverUnavailable, match="was given up") as info:
        env.step(PERU)
    assert not info.value.transient and env.transcript == before and SECRET not in str(env.transcript)
    service.down_until = 0.0
    assert "Lima" in env.step(PERU).observation
    assert env.step(OSLO).terminated


def test_an_outage_that_lasts_invalidates_the_searching_episodes_and_shows_them_nothing(settings, service, timer):
    envs = SearchQAVectorEnv(3, **settings)
    envs.reset(options={"question": ["norway", "peru", "norway"]})
    envs.step([NORWAY, PERU, NORWAY])
    service.down_until = float("inf")
    begun = timer.time
    observations, rewards, terminations, truncations, infos = envs.step([PERU, PERU, OSLO])
    assert timer.time - begun <= 60
    assert observations == ("", "", "") and rewards.tolist() == [0.0, 0.0, 1.0]
    assert truncations.tolist() == [True, True, False] and terminations.tolist() == [False, False, True]
    assert infos["valid"].tolist() == [0.0, 0.0, 1.0]
    assert infos["stop_reason"].tolist() == ["retriever_unavailable", "retriever_unavailable", "answered"]
    assert all((parts[:2] == 0.0).all() for name, parts in infos["reward_parts"].items() if name[0] != "_")
    assert [transcript.stop_reason is StopReason.RETRIEVER_UNAVAILABLE for transcript in envs.transcripts] == [
        True,
        True,
        False,
    ]
    assert SECRET not in f"{observations}{infos}{envs.transcripts}"
    service.down_until = 0.0
    envs.reset(options={"question": "norway", "reset_mask": truncations})
    observations, *_, infos = envs.step([NORWAY, NORWAY, ""])
    assert "Oslo" in observations[0] and infos["valid"].tolist()[:2] == [1.0, 1.0]


def test_an_episode_is_the_same_from_the_engine_while_recorded_and_replayed(settings, service, tmp_path):
    def play(retriever):
        envs = SearchQAVectorEnv(2, **{**settings, "retriever": retriever})
        log = [envs.reset(seed=1)[0]]
        log += [envs.step(segments)[:4] for segments in ([NORWAY, PERU], [PERU, "?"], [OSLO, OSLO])]
        return [[np.asarray(part).tolist() for part in step] for step in log], envs.transcripts

    tape = tmp_path / "tape.jsonl"
    expected = play(settings["retriever"])
    service.down_until = service.timer.time + 20
    assert play(RecordingRetriever(settings["retriever"], tape)) == expected
    asked = len(service.batches)
    assert play(ReplayRetriever(tape)) == expected
    assert len(service.batches) == asked


def test_a_failed_search_is_not_recorded(settings, service, tmp_path):
    tape = tmp_path / "tape.jsonl"
    recording = RecordingRetriever(settings["retriever"], tape)
    service.down_until = float("inf")
    with pytest.raises(RetrieverUnavailable):
        recording.search(["Norway"], 1)
    assert tape.read_bytes() == b""

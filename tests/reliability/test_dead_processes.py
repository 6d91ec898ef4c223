"""Processes of a training that are killed: an env runner is replaced and plays the same episodes."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")
pytest.importorskip("torch")

from ray.exceptions import ActorDiedError, RayTaskError
from ray.rllib.utils.actor_manager import RemoteCallResults, ResultOrError
from search_agents.learning import ReinforcePPConfig, deaths
from search_agents.learning.checkpoint import load_checkpoint, save_checkpoint
from search_agents.models import find_model

from search_env.datasets import Dataset
from search_env.errors import ProcessDied, RetrieverUnavailable
from search_env.retrieval.base import InMemoryRetriever
from search_env.types import Document, Hit, Question

CAPITALS = {"Norway": "Oslo", "Peru": "Lima", "Kenya": "Nairobi", "Japan": "Tokyo"}


def deadly_retriever(documents: Sequence[Document], armed: Path, driver: int) -> Any:
    """One that kills the process which searches, once each time that a file is there; never the driver's."""

    class Deadly(InMemoryRetriever):  # local, so that Ray sends the class itself to the other processes
        def search(self, queries: Sequence[str], top_k: int) -> list[tuple[Hit, ...]]:
            if os.getpid() != driver:
                try:
                    armed.unlink()
                except FileNotFoundError:
                    pass
                else:
                    os.kill(os.getpid(), signal.SIGKILL)
            return super().search(queries, top_k)

    return Deadly(documents)


@pytest.mark.usefixtures("ray_cluster")
def test_a_runner_that_is_killed_in_mid_rollout_is_replaced_and_its_episodes_are_played_again(tmp_path: Path) -> None:
    """Risk 11: SIGKILL of an env runner while it samples; the same seed gives the episodes of a run without it."""
    documents = tuple(
        Document(id=country, title=country, text=f"Its capital is {city}.") for country, city in CAPITALS.items()
    )
    questions = tuple(Question(id=each, text=f"Capital of {each}?", answers=(CAPITALS[each],)) for each in CAPITALS)
    armed = tmp_path / "armed"
    env = {
        "dataset": Dataset(name="capitals", split="train", questions=questions, documents=documents),
        "retriever": deadly_retriever(documents, armed, os.getpid()),
        "prompt": "bare",
        "top_k": 1,
    }
    config = (
        ReinforcePPConfig()
        .environment("SearchQA-FictionalWiki-v0", env_config=env)
        .env_runners(num_env_runners=2, num_envs_per_env_runner=4)
        .training(
            model=find_model("tiny"),
            prompts_per_batch=4,
            group_size=2,
            minibatch_size=4,
            max_segment_tokens=32,
            max_episode_tokens=300,
            autocast=False,
            torch_threads=1,
        )
    )
    algo = config.build_algo()
    try:
        start = save_checkpoint(algo, tmp_path / "start")
        algo.train()
        undisturbed = algo.episodes
        assert any(episode.metrics["searches"] for episode in undisturbed), "else nobody would be killed"
        load_checkpoint(algo, start)
        runners = pids(algo)
        armed.touch()
        result = algo.train()
        assert not armed.exists()
        assert result["env_runners"]["replaced_runners"] == 1
        assert len(set(pids(algo)) & set(runners)) == 1, "the other one lives on"
        assert algo.episodes == undisturbed
        assert algo.train()["env_runners"]["replaced_runners"] == 0
    finally:
        algo.stop()


def pids(algo: Any) -> list[int]:
    return algo.env_runner_group.foreach_env_runner(lambda _: os.getpid())  # type: ignore[no-any-return]


class Runners:
    """A group whose runners answer, die or fail as they are told, one outcome a request."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **outcomes: list[Any]) -> None:
        self.outcomes = {int(name.removeprefix("runner")): told for name, told in outcomes.items()}
        self.asked: list[dict[int, Any]] = []
        self._worker_manager = self
        self.replaced: list[int] = []
        monkeypatch.setattr(deaths, "_replace", lambda group, number: group.replaced.append(number))

    def actor_ids(self) -> list[int]:
        return list(self.outcomes)

    def foreach_actor(self, func: str, *, kwargs: list[Any], remote_actor_ids: list[int], healthy_only: bool) -> Any:
        self.asked.append(dict(zip(remote_actor_ids, kwargs, strict=True)))
        results = RemoteCallResults()
        for number in remote_actor_ids:
            outcome = self.outcomes[number].pop(0)
            failed = isinstance(outcome, Exception)
            results.add_result(number, ResultOrError(error=outcome) if failed else ResultOrError(result=outcome), None)
        return results


def test_only_the_dead_are_asked_again_and_with_the_same_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Risk 11: two runners die, one of them twice."""
    runners = Runners(
        monkeypatch,
        runner1=[ActorDiedError(), ActorDiedError(), ["a"]],
        runner2=[["b"]],
        runner3=[ActorDiedError(), ["c"]],
    )
    requests: list[Any] = [{"tasks": 1}, {"tasks": 2}, {"tasks": 3}]
    assert deaths.sample_on_runners(runners, requests) == ([["a"], ["b"], ["c"]], 3)
    assert runners.asked == [
        dict(zip((1, 2, 3), requests, strict=True)),
        {1: {"tasks": 1}, 3: {"tasks": 3}},
        {1: {"tasks": 1}},
    ]
    assert runners.replaced == [1, 3, 1]


def test_runners_that_die_again_and_again_end_the_run_with_a_word_about_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Risk 11: replacing has an end."""
    runners = Runners(monkeypatch, runner1=[ActorDiedError() for _ in range(9)], runner2=[["b"]])
    with pytest.raises(ProcessDied, match=r"died 4 times in a row(?s:.)*resume"):
        deaths.sample_on_runners(runners, [{}, {}])
    assert runners.replaced == [1, 1, 1]


def test_an_error_that_the_user_can_mend_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Risk 11: what our code raises in a runner reaches the user, also beside a death, also from a constructor."""
    mistake = RetrieverUnavailable("start the server")
    raised = RayTaskError("sample", str(mistake), mistake).as_instanceof_cause()
    for failing in (raised, ActorDiedError(RayTaskError("__init__", str(mistake), mistake))):
        runners = Runners(monkeypatch, runner1=[ActorDiedError()], runner2=[failing])
        with pytest.raises(RetrieverUnavailable, match="start the server"):
            deaths.sample_on_runners(runners, [{}, {}])
        assert runners.replaced == []

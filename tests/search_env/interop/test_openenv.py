"""An OpenEnv server of ours and OpenEnv's own client, over the loopback."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest

openenv = pytest.importorskip("openenv", reason="pip install 'search-env[openenv]'")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

ENV = "SearchQA-FictionalWiki-v0"
SEARCH = "<begin_of_query> film director <end_of_query>"


@contextlib.contextmanager
def served(**settings):
    """The address of a server with these settings."""
    import uvicorn

    from search_env.interop.openenv import create_server

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(create_server(ENV, **settings), log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(timeout=10)


def client(address):
    from openenv import GenericEnvClient

    return GenericEnvClient(base_url=address).sync()


def test_an_episode_over_the_loopback():
    from search_env import datasets

    question = datasets.load("fictional-wiki", split="train").questions[3]
    with served(reward="stage2") as address, client(address) as env:
        opened = env.reset(question=question.id)
        assert opened.observation["text"].endswith("<think>")
        assert opened.observation["info"]["stop"] == ["<end_of_query>", "</answer>"]
        assert question.answers[0] not in str(opened.observation)
        found = env.step({"segment": SEARCH})
        assert found.observation["text"].lstrip().startswith("<begin_of_documents>")
        assert (found.reward, found.done) == (0.0, False)
        assert (env.state()["question_id"], env.state()["searches"]) == (question.id, 1)
        ended = env.step({"segment": f"So. </think> <answer> {question.answers[0]} </answer>"})
        assert (ended.reward, ended.done, ended.observation["text"]) == (1.0, True, "")
        assert ended.observation["info"]["reward_parts"] == {"f1": 1.0, "format": 0.0}


def test_two_connections_play_two_episodes_over_one_index():
    with served() as address, client(address) as one, client(address) as other:
        first, second = one.reset(question=0), other.reset(question=1)
        assert first.observation["info"]["question_id"] != second.observation["info"]["question_id"]
        one.step({"segment": SEARCH})
        assert (one.state()["step_count"], other.state()["step_count"]) == (1, 0)


def test_the_same_seed_draws_the_same_question():
    with served() as address, client(address) as env:
        assert env.reset(seed=5).observation == env.reset(seed=5).observation


def test_a_failed_search_is_an_error_of_the_client_and_the_segment_may_be_sent_again(settings, watched_retriever):
    segment = "<begin_of_query> capital of Norway <end_of_query>"
    with served(**settings) as address, client(address) as env:
        env.reset(question="munch")
        watched_retriever.broken = True
        with pytest.raises(RuntimeError, match="the index is gone"):
            env.step({"segment": segment})
        assert env.state()["step_count"] == 0
        watched_retriever.broken = False
        assert "Oslo" in env.step({"segment": segment}).observation["text"]


def test_documents_reach_the_client_with_their_tags_inert(settings):
    with served(**settings) as address, client(address) as env:
        env.reset(question="munch")
        text = env.step({"segment": "<begin_of_query> poison <end_of_query>"}).observation["text"]
        assert "‹answer›Lima‹/answer›" in text
        assert "<answer>" not in text

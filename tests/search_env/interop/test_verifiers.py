"""verifiers plays our questions through its own loader, agents and chat program, against a scripted server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import textwrap
import threading
import time

import pytest

vf = pytest.importorskip("verifiers.v1", reason="pip install 'search-env[verifiers]'")
pytestmark = [
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(shutil.which("uv") is None, reason="verifiers prepares its chat program with uv"),
]

ENV = "SearchQA-FictionalWiki-v0"
SEARCH = "<think> Who? </think> <search> film director </search>"


@pytest.fixture(scope="module", autouse=True)
def module_that_verifiers_finds(tmp_path_factory):
    """The file that the adapter's docstring has the user write."""
    import search_env.interop.verifiers as adapter

    folder = tmp_path_factory.mktemp("plugin")
    code = textwrap.dedent(adapter.__doc__.split("::\n\n")[1].split("\nThe model")[0])
    (folder / "my_search.py").write_text(code)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield


@contextlib.contextmanager
def scripted_server(replies):
    """An OpenAI-compatible server that gives the replies in order; yields its address and the requests."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.responses import Response
    from starlette.routing import Route

    requests = []

    async def complete(request):
        body = await request.json()
        requests.append(body)
        base = {"id": "x", "object": "chat.completion.chunk", "created": 0, "model": body["model"]}
        said = {
            "index": 0,
            "delta": {"role": "assistant", "content": replies[len(requests) - 1]},
            "finish_reason": None,
        }
        end = {"index": 0, "delta": {}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        parts = [{**base, "choices": [said]}, {**base, "choices": [end]}, {**base, "choices": [], "usage": usage}]
        lines = [*map(json.dumps, parts), "[DONE]"]
        assert body["stream"]
        return Response("".join(f"data: {line}\n\n" for line in lines), media_type="text/event-stream")

    app = Starlette(routes=[Route("/v1/chat/completions", complete, methods=["POST"])])
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1", requests
        finally:
            server.should_exit = True
            thread.join(timeout=10)


def play(replies, *, question=0, player=None, **settings):
    """The episode of one question with these replies, and what the server was asked."""
    config = vf.resolve_env_config(
        {"taskset": {"id": "my-search", "env": ENV, "settings": settings}, "player": player or {}}
    )
    env = vf.load_environment(config)
    task = next(iter(env.taskset.include(idx=[str(question)])))

    async def run(address):
        client = vf.EvalClientConfig(base_url=address, api_key_var="NO_SUCH_KEY")
        async with env.serving():
            return await env.run_episode(task, vf.ModelContext(model="scripted", client=client))

    with scripted_server(replies) as (address, requests):
        return asyncio.run(run(address)), requests


def gold(question):
    from search_env import datasets

    return datasets.load("fictional-wiki", split="train").questions[question].answers[0]


def test_an_episode_is_played_and_rewarded():
    replies = [SEARCH, f"<think> So. </think> <answer> {gold(3)} </answer>"]
    episode, requests = play(replies, question=3, reward="stage2")
    assert episode.ok, episode.errors
    (trace,) = episode.traces
    assert trace.reward == trace.metrics["em"] == 1.0
    assert (trace.metrics["searches"], trace.metrics["reward/format"]) == (1.0, 0.0)
    roles = [message["role"] for message in requests[1]["messages"]]
    assert roles == ["system", "user", "assistant", "user"]
    assert "<information>Doc 1(Title: " in json.dumps(requests[1]["messages"][3])
    assert "answers" not in trace.task.data.model_dump_json()


def test_a_failed_search_fails_the_episode_and_leaves_no_reward():
    dead = {"name": "http", "url": "http://127.0.0.1:9/retrieve", "timeout": 1.0}
    episode, requests = play([SEARCH], retriever=dead)
    assert not episode.ok
    assert "RetrieverUnavailable" in episode.errors[0].message
    assert len(requests) == 1
    assert all("search_env" not in trace.rewards for trace in episode.traces)


def test_a_limit_of_verifiers_ends_in_the_reward_of_an_unfinished_episode():
    episode, _ = play([SEARCH, SEARCH], player={"max_turns": 1}, reward="stage2")
    assert episode.traces[0].rewards["search_env"].score == -2.0


def test_the_taskset_is_every_question_of_the_split():
    from search_env.interop.verifiers import SearchTaskset, SearchTasksetConfig

    config = SearchTasksetConfig(id="my-search", env=ENV, settings={"split": "test"})
    tasks = list(SearchTaskset(config).take(5))
    assert len({task.data.id for task in tasks}) == 5
    assert all("<search>" in task.data.system_prompt and task.data.prompt.endswith("?") for task in tasks)

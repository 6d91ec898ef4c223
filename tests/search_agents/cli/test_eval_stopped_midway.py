"""An evaluation that fails or is stopped within its first batch: what was answered is kept, and asked only once."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("openai")

from search_agents.cli import main
from search_agents.engines.base import Capability, SampledSegment
from search_agents.engines.scripted import ScriptedEngine, ScriptedSession
from search_agents.engines.transformers import TransformersEngine
from search_agents.methods.floor_and_ceiling import RandomAgent

from search_env.datasets import load

Captured = pytest.CaptureFixture[str]

QUESTIONS = 24
SEARCH = " I look. <begin_of_query> mayor <end_of_query>"
ANSWER = " I know. </think>\n\n<answer> nobody </answer>"


class Server:
    """Answers so many requests, and has a fault from then on; what it says depends on the prompt alone."""

    def __init__(self) -> None:
        self.left, self.searches = 10_000, False
        self.answered: list[str] = []
        lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                prompt = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["prompt"]
                with lock:
                    outer.left -= 1
                    works = outer.left >= 0
                    if works:
                        outer.answered.append(prompt)
                data = json.dumps(outer.reply(prompt) if works else {"error": {"message": "a fault"}}).encode()
                self.send_response(200 if works else 500)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments: Any) -> None:
                pass

        class Http(ThreadingHTTPServer):
            request_queue_size = 64  # nobody is turned away when all ask at once

        self.http = Http(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def reply(self, prompt: str) -> dict[str, Any]:
        begins = self.searches and len(prompt) % 2 and "I look." not in prompt
        choice = {"index": 0, "finish_reason": "stop", "logprobs": None, "text": SEARCH if begins else ANSWER}
        usage = {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
        return {"id": "1", "object": "text_completion", "created": 0, "model": "m", "choices": [choice], "usage": usage}


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


@pytest.fixture
def argv(server: Server) -> list[str]:
    """All questions in one batch, at one temperature."""
    return ["eval", "--model", "m", "--model.server.url", server.url, "--model.server.api", "completions",
            "--model.server.retries", "0", "--env.prompt", "base", "--limit", str(QUESTIONS),
            "--evaluation.temperatures", "[0]"]  # fmt: skip


def outcome(folder: Path) -> dict[str, Any]:
    """Everything that an evaluation left, but for times and origin."""
    result = json.loads((folder / "result.json").read_text())
    rows = [{**row, "seconds": 0, "seconds_per_question": 0} for row in result["results"]]
    return {**result, "origin": 0, "results": rows, "transcripts": [{**row, "elapsed": 0} for row in kept(folder)]}


def kept(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "transcripts-0.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("method", ["r1-searcher", "naive-generation", "standard-rag"])
def test_what_a_server_answered_before_it_failed_is_kept_and_not_asked_again(
    argv: list[str], server: Server, tmp_path: Path, capsys: Captured, method: str
) -> None:
    argv = [*argv, "--method", method]
    assert main([*argv, "--out", str(tmp_path / "whole")]) == 0
    server.answered.clear()
    out, server.left = tmp_path / "out", 20
    assert main([*argv, "--out", str(out)]) == 2
    message = capsys.readouterr().err
    assert "Start the server again; what was answered is kept; go on with: search-env resume " + str(out) in message
    assert len(kept(out)) == 20 == len(server.answered)
    server.left = 10_000
    assert main(["resume", str(out)]) == 0
    assert len(set(server.answered)) == len(server.answered) == QUESTIONS
    assert outcome(out) == outcome(tmp_path / "whole")


def test_episodes_that_were_not_at_their_end_are_played_again_and_no_others(
    argv: list[str], server: Server, tmp_path: Path
) -> None:
    server.searches = True
    assert main([*argv, "--out", str(tmp_path / "whole")]) == 0
    out, server.left = tmp_path / "out", 20
    assert main([*argv, "--out", str(out)]) == 2
    finished = [row["question"]["text"] for row in kept(out)]
    assert 0 < len(finished) < 20
    server.answered.clear()
    server.left = 3
    assert main(["resume", str(out)]) == 2
    server.left = 10_000
    assert main(["resume", str(out)]) == 0
    assert not [prompt for prompt in server.answered if any(text in prompt for text in finished)]
    assert outcome(out) == outcome(tmp_path / "whole")


def test_a_server_that_answered_nothing_leaves_no_folder_so_that_the_same_command_works(
    argv: list[str], server: Server, tmp_path: Path, capsys: Captured
) -> None:
    out, server.left = tmp_path / "out", 0
    assert main([*argv, "--out", str(out)]) == 2
    message = capsys.readouterr().err
    assert "Start the server again." in message and "resume" not in message and "answered" not in message
    assert not out.exists()
    server.left = 10_000
    assert main([*argv, "--out", str(out)]) == 0


class Engine(ScriptedEngine):
    """Searches before it answers every other question; is interrupted at a segment if told."""

    def __init__(self, asynchronous: bool) -> None:
        texts = [question.text for question in load("fictional-wiki", split="test").questions]
        super().__init__({text: [SEARCH, ANSWER] if len(text) % 2 else [ANSWER] for text in texts})
        self._asynchronous = asynchronous
        self.left, self.said = 10_000, 0

    @property
    def capabilities(self) -> frozenset[Capability]:
        return super().capabilities - (frozenset() if self._asynchronous else {Capability.ASYNCHRONOUS})

    def open(self, prompts: Sequence[Sequence[int]], *, seeds: Sequence[int], max_tokens: int) -> ScriptedSession:
        engine = self

        class Session(ScriptedSession):
            def _say(self, row: int, params: Any) -> SampledSegment:
                if engine.said == engine.left:
                    raise KeyboardInterrupt
                engine.said += 1
                return super()._say(row, params)

        return Session([self._script(prompt) for prompt in prompts], prompts, max_tokens)


@pytest.mark.parametrize("asynchronous", [True, False])
def test_ctrl_c_within_the_first_batch_keeps_the_episodes_that_have_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured, asynchronous: bool
) -> None:
    engine = Engine(asynchronous)
    monkeypatch.setattr(TransformersEngine, "from_pretrained", lambda *_, **__: engine)
    (tmp_path / "model").mkdir()
    argv = ["eval", "--model", str(tmp_path / "model"), "--limit", str(QUESTIONS), "--evaluation.temperatures", "[0]"]
    assert main([*argv, "--out", str(tmp_path / "whole")]) == 0
    segments, out = engine.said, tmp_path / "out"
    engine.left = segments + QUESTIONS + 1  # in the second turn, unless searches were quick
    assert main([*argv, "--out", str(out)]) == 130
    assert f"search-env resume {out}" in capsys.readouterr().err
    answered = kept(out)
    assert len(answered) >= sum(len(row["turns"]) == 1 for row in outcome(tmp_path / "whole")["transcripts"]) > 3
    engine.left, engine.said = 10_000, 0
    assert main(["resume", str(out)]) == 0
    assert engine.said == segments - sum(len(row["turns"]) for row in answered)
    assert outcome(out) == outcome(tmp_path / "whole")


def test_an_agent_that_breaks_midway_leaves_what_it_answered_and_the_command_to_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv, out = ["eval", "--method", "random", "--limit", "6", "--evaluation.temperatures", "[0]"], tmp_path / "out"
    assert main([*argv, "--out", str(tmp_path / "whole")]) == 0
    segment, said = RandomAgent._segment, []

    def breaking(agent: RandomAgent, transcript: Any) -> str:
        said.append(transcript)
        if len(said) == 10:  # six queries, then the fourth answer
            raise ZeroDivisionError("a mistake of the agent")
        return segment(agent, transcript)

    with monkeypatch.context() as patch:
        patch.setattr(RandomAgent, "_segment", breaking)
        with pytest.raises(ZeroDivisionError) as failure:
            main([*argv, "--out", str(out)])
    assert failure.value.__notes__ == [f"what was answered is kept; go on with: search-env resume {out}"]
    assert len(kept(out)) == 3
    assert main(["resume", str(out)]) == 0
    assert outcome(out) == outcome(tmp_path / "whole")

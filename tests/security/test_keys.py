"""A key is in the environment and in the request that needs it, and in nothing that anybody reads or keeps."""

from __future__ import annotations

import base64
import json
import logging
import pickle
import threading
import time
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("elasticsearch")
pytest.importorskip("httpx")
pytest.importorskip("openai")
pytest.importorskip("opensearchpy")
pytest.importorskip("torch")

import cloudpickle
from search_agents.cli import main
from search_agents.config.sections import ServerSection
from search_agents.engines.base import GenerationRequest, SamplingParams
from search_agents.engines.openai import OpenAIEngine

from search_env.errors import ConfigError, SearchEnvError
from search_env.retrieval import get_retriever
from search_env.types import Prompt

CANARY = "canary-5d0c93e1"
LOGIN = base64.b64encode(f"reader:{CANARY}".encode()).decode()


class Endpoint:
    """Answers every request by repeating its headers, as a proxy's page of errors does, or not at all."""

    def __init__(self) -> None:
        self.status, self.pause, self.asked = 401, 0.0, 0
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("content-length", 0)))
                endpoint.asked += 1
                assert CANARY in str(self.headers) or LOGIN in str(self.headers)
                time.sleep(endpoint.pause)
                headers = dict(self.headers.items())
                error = {"type": "refused", "reason": str(headers), "message": str(headers)}
                body = json.dumps({"error": error, "headers": headers}).encode()
                try:
                    self.send_response(endpoint.status)
                    self.send_header("content-type", "application/json")
                    self.send_header("x-elastic-product", "Elasticsearch")
                    self.send_header("content-length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)
                except OSError:
                    pass  # who asked did not wait

            do_GET = do_POST

            def log_message(self, *args: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.thread.join()


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("THE_KEY", CANARY)
    monkeypatch.setenv("THE_USER", "reader")
    made = Endpoint()
    yield made
    made.close()


FAILURES = [(401, 0.0), (403, 0.0), (400, 0.0), (500, 0.0), (200, 0.0), (401, 1.5)]


def fail(endpoint: Endpoint, status: int, pause: float) -> None:
    endpoint.status, endpoint.pause = status, pause


def shown(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str], *more: str) -> str:
    told = capfd.readouterr()
    return "\n".join([told.out, told.err, caplog.text, *more])


def check(text: str) -> None:
    assert CANARY not in text
    assert LOGIN not in text


@pytest.mark.parametrize(("status", "pause"), FAILURES)
@pytest.mark.parametrize("name", ["http", "elasticsearch", "opensearch", "elasticsearch-login", "opensearch-login"])
def test_a_retriever_that_fails_tells_no_key(
    endpoint: Endpoint, name: str, status: int, pause: float, caplog: Any, capfd: Any
) -> None:
    """Risk 8: keys in errors, tracebacks, logs and pickles of retrievers whose server repeats what it was sent."""
    fail(endpoint, status, pause)
    caplog.set_level(logging.INFO)  # below it, libraries log replies word by word
    engine, _, login = name.partition("-")
    spec: dict[str, Any] = {"name": engine, "url": endpoint.url, "api_key_env": "THE_KEY"}
    spec |= {"timeout": 0.5} if engine == "http" else {"index": "wiki", "timeout_s": 0.5}
    if login:
        spec |= {"api_key_env": None, "username_env": "THE_USER", "password_env": "THE_KEY"}
    retriever = get_retriever(spec, ())
    try:
        with pytest.raises(SearchEnvError) as caught:
            retriever.search(["x"], 3)
        assert endpoint.asked
        pickled = [dumps(retriever).decode("latin-1") for dumps in (pickle.dumps, cloudpickle.dumps)]
    finally:
        retriever.close()
    error = caught.value
    told = [str(error), repr(error), "".join(traceback.format_exception(error)), repr(retriever), repr(vars(retriever))]
    check(shown(caplog, capfd, *told, *pickled))


@pytest.mark.parametrize(("status", "pause"), FAILURES)
def test_an_engine_that_fails_tells_no_key(
    endpoint: Endpoint, status: int, pause: float, caplog: Any, capfd: Any
) -> None:
    """Risk 8: keys in errors, tracebacks, logs and pickles of a model's server."""
    fail(endpoint, status, pause)
    caplog.set_level(logging.INFO)  # below it, libraries log replies word by word
    section = ServerSection(url=f"{endpoint.url}/v1", api_key_env="THE_KEY", retries=0, timeout=0.5, api="completions")
    engine = OpenAIEngine("m", section)
    request = GenerationRequest(prompt=Prompt(user="Who?"), sampling=SamplingParams(max_tokens=9), seed=0)
    with pytest.raises(Exception) as caught:
        engine.generate([request], chat=False, max_tokens=100)
    error = caught.value
    pickled = [dumps(engine).decode("latin-1") for dumps in (pickle.dumps, cloudpickle.dumps)]
    told = [str(error), repr(error), "".join(traceback.format_exception(error)), section.model_dump_json()]
    check(shown(caplog, capfd, *told, *pickled))


@pytest.mark.parametrize(("status", "pause"), [(401, 0.0), (500, 0.0), (401, 1.5)])
def test_an_evaluation_that_fails_keeps_no_key(
    endpoint: Endpoint, status: int, pause: float, caplog: Any, capfd: Any, tmp_path: Path
) -> None:
    """Risk 8: keys in what the command prints and in the whole folder that it leaves."""
    fail(endpoint, status, pause)
    caplog.set_level(logging.INFO)  # below it, libraries log replies word by word
    argv = ["eval", "--model", "m", "--method", "naive-generation", "--limit", "2", "--env.prompt", "instruct"]
    server = {"url": f"{endpoint.url}/v1", "api-key-env": "THE_KEY", "retries": "0", "timeout": "0.5"}
    flags = [part for key, value in server.items() for part in (f"--model.server.{key}", value)]
    assert main([*argv, *flags, "--out", str(tmp_path / "out")]) == 2
    assert endpoint.asked
    check(shown(caplog, capfd, *(path.read_text() for path in tmp_path.rglob("*") if path.is_file())))


def test_an_evaluation_whose_searches_fail_keeps_no_key(
    endpoint: Endpoint, caplog: Any, capfd: Any, tmp_path: Path
) -> None:
    """Risk 8: keys of a search server in the folder of an evaluation, its transcripts and the page made of them."""
    fail(endpoint, 500, 0.0)
    caplog.set_level(logging.INFO)
    out = tmp_path / "out"
    retriever = f"{{name: http, url: '{endpoint.url}', api_key_env: THE_KEY, timeout: 2}}"
    assert main(["eval", "--method", "oracle", "--limit", "2", "--env.retriever", retriever, "--out", str(out)]) == 2
    assert endpoint.asked and json.loads((out / "result.json").read_text())["results"][0]["invalid"] == 2
    assert main(["view", str(out), "--out", str(tmp_path / "page.html")]) == 0
    kept = [path.read_text() for path in tmp_path.rglob("*") if path.is_file()]
    assert len(kept) >= 4 and any("THE_KEY" in text for text in kept)
    check(shown(caplog, capfd, *kept))


@pytest.mark.parametrize(
    "flags",
    [
        ["--model.server.url", f"http://reader:{CANARY}@127.0.0.1:9/v1"],
        ["--model.server.url", f"http://127.0.0.1:9/v1?key={CANARY}"],
        ["--model.server.url", CANARY],
        ["--model.server.url", "http://127.0.0.1:9/v1", "--model.server.api-key-env", CANARY],
        ["--env.retriever", f"{{name: http, url: 'http://reader:{CANARY}@127.0.0.1:9'}}"],
        ["--env.retriever", f"{{name: http, api_key_env: {CANARY}}}"],
        ["--env.retriever", f"{{name: elasticsearch, index: wiki, url: 'http://reader:{CANARY}@127.0.0.1:9'}}"],
        ["--env.retriever", f"{{name: elasticsearch, index: wiki, url: 'http://x:9', api_key_env: {CANARY}}}"],
        ["--env.retriever", f"{{name: elasticsearch, index: wiki, url: 'http://x:9', api_key: {CANARY}}}"],
        ["--env.retriever", f"{{name: online, provider: serper, api_key_env: {CANARY}}}"],
    ],
    ids=" ".join,
)
def test_a_key_in_the_wrong_place_is_refused_without_repeating_it(flags: list[str], tmp_path: Path, capfd: Any) -> None:
    """Risk 8: keys in addresses, and where the name of a variable belongs."""
    out = tmp_path / "out"
    assert main(["eval", "--limit", "2", "--out", str(out), *flags]) == 2
    told = capfd.readouterr()
    assert "Traceback" not in told.err
    check(told.out + told.err)
    assert not out.exists()


def test_a_missing_key_is_named_by_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Risk 8: only the name of the variable is in the config, so only the name can be told."""
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    retriever = get_retriever({"name": "http", "url": "http://127.0.0.1:9", "api_key_env": "NO_SUCH_KEY"}, ())
    with pytest.raises(ConfigError, match="NO_SUCH_KEY"):
        retriever.search(["x"], 1)

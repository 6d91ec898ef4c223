"""Nothing is asked of the network unless somebody says so, and then nothing that is not public."""

from __future__ import annotations

import ast
import socket
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

pytest.importorskip("httpcore")
pytest.importorskip("trafilatura")

import httpcore

import search_env
from search_env.retrieval.online.fetch import PageFetcher
from search_env.retrieval.online.guard import BlockedURL

PUBLIC = "93.184.216.34"
TARGETS: dict[str, list[str]] = {
    "http://127.1/": [],
    "http://0x7f000001/": [],
    "http://0177.0.0.1/": [],
    "http://2130706433/": [],
    "http://0.0.0.0/": [],
    "http://[::1]/": [],
    "http://[::ffff:169.254.169.254]/latest/meta-data/": [],
    "http://169.254.169.254/latest/meta-data/": [],
    "http://10.0.0.7/": [],
    "http://172.16.0.1/": [],
    "http://192.168.1.1/": [],
    "http://100.64.0.1/": [],
    "http://localhost/": ["127.0.0.1"],
    "http://localhost./": ["127.0.0.1"],
    "http://intranet.example/": ["10.0.0.7"],
    "http://both.example/": [PUBLIC, "10.0.0.7"],
    "http://rebound.example/": ["::ffff:127.0.0.1"],
    "http://user:word@open.example/": [PUBLIC],
    "http://open.example:9200/": [PUBLIC],
    "file:///etc/passwd": [],
    "gopher://open.example/_x": [PUBLIC],
    "ftp://open.example/": [PUBLIC],
    "//open.example/": [PUBLIC],
}


class Network(httpcore.MockBackend):
    """Answers with prepared bytes; counts the connections."""

    def __init__(self, *parts: bytes) -> None:
        super().__init__(list(parts))
        self.connections: list[str] = []

    def connect_tcp(self, host: str, *rest: Any, **named: Any) -> Any:
        self.connections.append(host)
        return super().connect_tcp(host, *rest, **named)


def fetcher(network: Network, addresses: list[str], **more: Any) -> PageFetcher:
    def resolver(host: str, port: int) -> list[str]:
        return [PUBLIC] if host == "first.example" else addresses

    return PageFetcher(5.0, 10_000, resolver=resolver, network=network, **more)


@pytest.mark.parametrize("url", TARGETS)
def test_no_connection_is_made_to_what_is_not_a_public_page(url: str) -> None:
    """Risk 7: server-side request forgery by the URL of a search result."""
    network = Network()
    with pytest.raises(BlockedURL):
        fetcher(network, TARGETS[url]).fetch(url)
    assert network.connections == []


@pytest.mark.parametrize("url", TARGETS)
def test_no_redirect_leads_to_what_is_not_a_public_page(url: str) -> None:
    """Risk 7: server-side request forgery by a redirect."""
    if url.startswith("//"):
        pytest.skip("relative to the page it is a public address")
    network = Network(f"HTTP/1.1 302 Found\r\nlocation: {url}\r\ncontent-length: 0\r\n\r\n".encode())
    with pytest.raises(BlockedURL):
        fetcher(network, TARGETS[url]).fetch("http://first.example/")
    assert network.connections == [PUBLIC]


@pytest.mark.parametrize("length", ["content-length: 10001\r\n", "transfer-encoding: chunked\r\n"])
def test_a_page_that_is_too_large_is_cut_off(length: str) -> None:
    """Risk 7: a page without an end."""
    head = f"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n{length}\r\n".encode()
    chunk = b"400\r\n" + b"x" * 1024 + b"\r\n"
    network = Network(head, *[chunk] * 50)
    with pytest.raises(BlockedURL, match="larger than"):
        fetcher(network, []).fetch("http://first.example/")


def test_a_page_that_is_too_slow_is_cut_off() -> None:
    """Risk 7: a page that drips."""
    now = iter(range(0, 1000, 2))
    network = Network(b"HTTP/1.1 200 OK\r\n", *[b"x"] * 50)
    with pytest.raises(BlockedURL, match="took longer"):
        fetcher(network, [], clock=lambda: float(next(now))).fetch("http://first.example/")


def test_an_episode_with_the_defaults_asks_the_network_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Risk 7: off by default."""

    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was asked")

    for name in ("connect", "connect_ex", "sendto", "bind"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    env = gym.make("search_env:SearchQA-FictionalWiki-v0")
    env.reset(seed=0)
    _, _, terminated, _, info = env.step("<begin_of_query> director of the film <end_of_query>")
    assert not terminated and info["searches"] == 1
    assert env.step("</think> <answer> nobody </answer>")[2]


def test_nothing_fetches_a_page_but_the_online_retriever() -> None:
    """Risk 7: one place opens what a stranger's URL names."""
    package = Path(search_env.__file__).parent
    callers = set()
    for file in [*package.rglob("*.py"), *(package.parent / "agents").rglob("*.py")]:
        imported = {
            alias.name.partition(".")[0]
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in (node.names if isinstance(node, ast.Import) else [ast.alias(node.module or "")])
        }
        if imported & {"httpx", "httpcore", "requests", "urllib3", "aiohttp", "http"} or "urlopen" in file.read_text():
            callers.add(file.relative_to(package.parent).as_posix())
    others = {caller for caller in callers if not caller.startswith("search_env/retrieval/online/")}
    assert others == {f"search_env/retrieval/{name}.py" for name in ("elasticsearch", "http", "opensearch")}

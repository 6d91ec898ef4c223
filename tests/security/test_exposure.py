"""What listens, listens on this machine only, unless somebody says by which names others may call it."""

from __future__ import annotations

import ast
import asyncio
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")
pytest.importorskip("httpx")

import httpx
from search_agents.cli.serve import parser

import search_env
from search_env.errors import ConfigError
from search_env.retrieval.base import InMemoryRetriever
from search_env.serving import ServerSettings, allowed_hosts, listen
from search_env.serving.app import create_app
from search_env.types import Document


def status(hosts: tuple[str, ...], host: str) -> int:
    """What a request that calls the server by some name is answered with."""

    async def ask() -> int:
        retriever = InMemoryRetriever([Document(id="1", title="Oslo", text="A capital.")])
        app: Any = create_app(retriever, ServerSettings(), hosts)
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return (await client.get("/v1/info", headers={"Host": host})).status_code

    return asyncio.run(ask())


def test_the_server_listens_on_the_loopback_by_default() -> None:
    """Risk 18: a server that other machines reach by accident."""
    arguments = parser("serve", "").parse_args([])
    assert (arguments.host, arguments.expose) == ("127.0.0.1", [])
    with listen(arguments.host, 0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "my-node.lan", ""])
def test_another_address_is_refused_until_the_names_are_given(host: str) -> None:
    """Risk 18: there is no password, so an open address must be asked for twice."""
    with pytest.raises(ConfigError, match="--expose"):
        allowed_hosts(host)


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "10.0.0.7:8000", "", "localhost.evil"])
def test_a_page_whose_name_points_here_is_refused(host: str) -> None:
    """Risk 18: DNS rebinding."""
    assert status(allowed_hosts("127.0.0.1"), host) == 400
    assert status(allowed_hosts("127.0.0.1"), "localhost:8000") == 200
    assert status(allowed_hosts("0.0.0.0", ["node7.lan"]), "node7.lan:8000") == 200


def test_nothing_else_opens_a_port() -> None:
    """Risk 18: the viewer and the leaderboard are files, so only the server of a retriever listens."""
    package = Path(search_env.__file__).parent
    opening = set()
    for file in [*package.rglob("*.py"), *(package.parent / "agents").rglob("*.py")]:
        for node in ast.walk(ast.parse(file.read_text())):
            called = ast.unparse(node.func).rpartition(".")[2] if isinstance(node, ast.Call) else ""
            if called in ("bind", "listen", "HTTPServer", "ThreadingHTTPServer", "Server", "start_server"):
                opening.add(file.relative_to(package.parent).as_posix())
    assert opening <= {"search_env/serving/__init__.py", "agents/search_agents/cli/serve.py"}

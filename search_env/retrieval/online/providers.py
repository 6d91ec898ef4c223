"""The search engines: how each is asked and how its reply is read.

A reply is read strictly: one that does not have the documented shape is a failure and
never an empty result. Keys travel in a header, never in a URL, because URLs are logged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

from pydantic import BaseModel, ConfigDict

__all__ = ["Google", "SearchProvider", "SearchResult", "SearxNG", "Serper"]

RESULTS = 10
"""Results asked for in one call: the most that Serper and Google count as one."""


@dataclass(frozen=True, slots=True)
class SearchResult:
    """What a search engine says of one page."""

    url: str
    title: str
    snippet: str
    """What it quotes from the page; may be empty."""


class SearchProvider(Protocol):
    """Knows one search engine."""

    name: ClassVar[str]
    key_env: ClassVar[str | None]
    """Environment variable that holds the key unless the settings name another; None if there is no key."""
    key_header: ClassVar[str]
    """Header that carries the key."""

    def request(self, query: str) -> dict[str, Any]:
        """What to ask: the arguments of `httpx.Client.build_request`."""
        ...

    def read(self, body: bytes) -> list[SearchResult]:
        """The results in a reply, best first.

        Raises:
            ValueError: If the reply is not what the engine documents.
        """
        ...


@dataclass(frozen=True)
class Serper:
    """Google's results by way of serper.dev."""

    name: ClassVar[str] = "serper"
    key_env: ClassVar[str | None] = "SERPER_API_KEY"
    key_header: ClassVar[str] = "X-API-KEY"

    def request(self, query: str) -> dict[str, Any]:
        """What to ask; see `SearchProvider.request`."""
        return {"method": "POST", "url": "https://google.serper.dev/search", "json": {"q": query, "num": RESULTS}}

    def read(self, body: bytes) -> list[SearchResult]:
        """The organic results; see `SearchProvider.read`."""
        reply = _SerperReply.model_validate_json(body)
        return [SearchResult(item.link, item.title, item.snippet or "") for item in reply.organic]


@dataclass(frozen=True)
class Google:
    """Google's Programmable Search Engine, by its Custom Search JSON API.

    Google takes no new customers for it and ends it on 1 January 2027.
    """

    name: ClassVar[str] = "google"
    key_env: ClassVar[str | None] = "GOOGLE_API_KEY"
    key_header: ClassVar[str] = "X-Goog-Api-Key"  # One of the system parameters of all of Google's APIs.

    engine_id: str
    """The id of the search engine (``cx``)."""

    def request(self, query: str) -> dict[str, Any]:
        """What to ask; see `SearchProvider.request`."""
        parameters = {"cx": self.engine_id, "q": query, "num": str(RESULTS)}
        return {"method": "GET", "url": "https://customsearch.googleapis.com/customsearch/v1", "params": parameters}

    def read(self, body: bytes) -> list[SearchResult]:
        """The items; see `SearchProvider.read`."""
        reply = _GoogleReply.model_validate_json(body)
        return [SearchResult(item.link, item.title, item.snippet or "") for item in reply.items]


@dataclass(frozen=True)
class SearxNG:
    """A SearxNG server, which asks other engines and needs no key; its settings must allow the format ``json``."""

    name: ClassVar[str] = "searxng"
    key_env: ClassVar[str | None] = None
    key_header: ClassVar[str] = ""

    url: str
    """The address of the server."""

    def request(self, query: str) -> dict[str, Any]:
        """What to ask; see `SearchProvider.request`."""
        return {"method": "GET", "url": f"{self.url.rstrip('/')}/search", "params": {"q": query, "format": "json"}}

    def read(self, body: bytes) -> list[SearchResult]:
        """The results; see `SearchProvider.read`."""
        reply = _SearxReply.model_validate_json(body)
        if not reply.results and reply.unresponsive_engines:
            raise ValueError("none of the engines behind it responded")
        return [SearchResult(item.url, item.title, item.content or "") for item in reply.results[:RESULTS]]


class _Reply(BaseModel):
    # Engines add keys as they like; a reply must not be quoted in an error, where it could echo the key.
    model_config = ConfigDict(extra="ignore", strict=True, hide_input_in_errors=True)


class _Organic(_Reply):
    link: str
    title: str
    snippet: str | None = None


class _SerperReply(_Reply):
    organic: list[_Organic]


class _GoogleReply(_Reply):
    kind: Literal["customsearch#search"]  # Without results there are no items, so they do not tell a reply.
    items: list[_Organic] = []


class _SearxResult(_Reply):
    url: str
    title: str
    content: str | None = None


class _SearxReply(_Reply):
    results: list[_SearxResult]
    unresponsive_engines: list[Any] = []

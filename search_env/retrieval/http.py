"""A retriever that asks any server of the Search-R1 API: Search-R1's own, or ``search-env serve``.

A reply is taken whole or not at all: whatever is not the documented shape is
`RetrieverUnavailable`, never an empty result. A failure that may pass (no connection, a
timeout, 429, 5xx) is marked ``transient``; trying again is up to
the caller. See `search_env.retrieval.search_r1` for the shape.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import time
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt, field_validator

from search_env.errors import ConfigError, MissingDependencyError, RetrieverUnavailable
from search_env.retrieval.search_r1 import read_reply, write_request
from search_env.secrets import VariableName, masked, shown_cause
from search_env.types import Document, Hit

if TYPE_CHECKING:
    import httpx

__all__ = ["HTTPRetriever", "HTTPSettings"]

_MAX_REPLY_BYTES = 64 * 2**20
_MAX_SHOWN = 200
_WORTH_A_RETRY = frozenset({429, 500, 502, 503, 504})


class HTTPSettings(BaseModel):
    """Where a Search-R1 server is and how it is asked."""

    # An address with a password in it is refused, and must not be shown while it is.
    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True, hide_input_in_errors=True
    )

    url: str = "http://127.0.0.1:8000/retrieve"
    """Address of the server; without a path, /retrieve is meant."""
    corpus: str = ""
    """What the server searches, for example wiki-18-e5, or the fingerprint that a search-env server shows at
    /v1/info. It names the scores; empty takes the address instead."""
    timeout: PositiveFloat = 30.0
    """Seconds that the server may take for one request."""
    batch_size: PositiveInt = 256
    """Most queries of one request; more are sent in several."""
    max_query_chars: PositiveInt = 10_000
    """A query is cut after that many characters, so that no text of a model is refused for its length."""
    api_key_env: VariableName | None = None
    """Name of the environment variable whose value is sent as a bearer token, for a server behind a gateway."""

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("must be an address like http://127.0.0.1:8000/retrieve")
        if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
            raise ValueError("must hold no user, password or query; name a variable with a key in api_key_env")
        return parts._replace(path="/retrieve" if parts.path in ("", "/") else parts.path).geturl()

    def build(self, documents: Sequence[Document] = ()) -> HTTPRetriever:
        """The retriever; it has its own documents."""
        return HTTPRetriever(self)


class HTTPRetriever:
    """Searches through a Search-R1 server; free to be pickled, copied, forked and shared by threads.

    Connections are opened by the first search of a process.

    Args:
        settings: Where the server is.
        transport: What carries the requests, for tests; None for the network.
    """

    def __init__(self, settings: HTTPSettings, *, transport: httpx.BaseTransport | None = None) -> None:
        self.settings = settings
        self._transport = transport
        self._opened: tuple[int, httpx.Client] | None = None

    @property
    def fingerprint(self) -> str:
        """``http-`` and a hash of the corpus' name, or of the address if it has none."""
        named = f"corpus {self.settings.corpus}" if self.settings.corpus else f"url {self.settings.url}"
        return f"http-{hashlib.sha256(named.encode()).hexdigest()[:16]}"

    def search(self, queries: Sequence[str], top_k: int) -> list[tuple[Hit, ...]]:
        """Run a batch of queries, each different one once; see `Retriever.search`.

        Raises:
            ConfigError: If `top_k` is below 1, or the variable with the key is not set.
            RetrieverUnavailable: If the server cannot be reached, refuses, or answers something else.
        """
        if top_k < 1:
            raise ConfigError(f"top_k is the number of documents to return and must be at least 1, got {top_k}")
        sent = [self._sendable(query) for query in queries]
        different, size = list(dict.fromkeys(sent)), self.settings.batch_size
        found: dict[str, tuple[Hit, ...]] = {}
        for start in range(0, len(different), size):
            batch = different[start : start + size]
            found.update(zip(batch, self._ask(batch, top_k), strict=True))
        return [found[query] for query in sent]

    def close(self) -> None:
        """Close the connections; the next search opens them again."""
        if self._opened is not None:
            _close(*self._opened)
        self._opened = None

    def _sendable(self, query: str) -> str:
        # A lone surrogate has no UTF-8; as a question mark it still separates words and matches none.
        return query[: self.settings.max_query_chars].encode(errors="replace").decode()

    def _ask(self, queries: Sequence[str], top_k: int) -> list[tuple[Hit, ...]]:
        client = self._client()
        import httpx

        url, key = self.settings.url, os.environ.get(self.settings.api_key_env or "")
        try:
            status, body = self._post(client, write_request(queries, top_k))
        except httpx.TransportError as error:
            what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            raise RetrieverUnavailable(
                f"the search server at {url} cannot be asked ({masked(what, key)}). Is it running? "
                "`search-env serve` starts one.",
                transient=True,
            ) from shown_cause(error, key)
        except httpx.HTTPError as error:
            raise RetrieverUnavailable(
                f"the reply of the search server at {url} cannot be decoded: {masked(str(error), key)}"
            ) from shown_cause(error, key)
        if status != 200:
            shown = masked(body.decode(errors="replace"), key)[:_MAX_SHOWN]  # half a key is too much of it
            raise RetrieverUnavailable(
                f"the search server at {url} answered with status {status}: {shown!r}",
                transient=status in _WORTH_A_RETRY,
            )
        try:
            return read_reply(body, len(queries), top_k)
        except ValueError as error:
            raise RetrieverUnavailable(
                f"the reply of {url} is not that of a Search-R1 server: {masked(str(error), key)}. Check the address."
            ) from shown_cause(error, key)

    def _post(self, client: httpx.Client, request: bytes) -> tuple[int, bytes]:
        """Status and body of the reply; neither its size nor its time is up to the server."""
        deadline = time.monotonic() + self.settings.timeout
        body = bytearray()
        with client.stream("POST", self.settings.url, content=request) as response:
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > _MAX_REPLY_BYTES:
                    raise RetrieverUnavailable(
                        f"the reply of {self.settings.url} is larger than {_MAX_REPLY_BYTES:,} bytes; "
                        "set a smaller top_k or batch_size"
                    )
                if time.monotonic() > deadline:
                    raise RetrieverUnavailable(
                        f"the reply of {self.settings.url} was not complete after {self.settings.timeout:g} s",
                        transient=True,
                    )
        return response.status_code, bytes(body)

    def _client(self) -> httpx.Client:
        if self._opened is None or self._opened[0] != os.getpid():
            client = self._open()
            self._opened = (os.getpid(), client)
            weakref.finalize(self, _close, *self._opened)
        return self._opened[1]

    def _open(self) -> httpx.Client:
        try:
            import httpx
        except ImportError as error:
            raise MissingDependencyError(
                "asking a search server needs the package httpx: pip install 'search-env[http]'"
            ) from error
        headers = {"Content-Type": "application/json", "Accept": "application/json", "Accept-Encoding": "identity"}
        if self.settings.api_key_env is not None:
            headers["Authorization"] = f"Bearer {_key(self.settings.api_key_env)}"
        return httpx.Client(
            headers=headers,
            timeout=self.settings.timeout,
            transport=self._transport,
            # One for each thread that searches. Beyond a limit, a thread that is done closes connections which others
            # were given and have not used yet: of thousands of searches some fail with a bad file descriptor.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
            # A proxy of the environment is for other machines.
            trust_env=not _is_here(urlsplit(self.settings.url).hostname or ""),
        )

    def __getstate__(self) -> dict[str, Any]:
        # Connections belong to their process; another one opens its own when it first searches.
        return {**self.__dict__, "_opened": None}

    def __deepcopy__(self, memo: dict[int, Any]) -> HTTPRetriever:
        # Gymnasium deep-copies an environment's arguments each time its spec is read.
        return self


def _close(pid: int, client: httpx.Client) -> None:
    # After a fork the parent still uses its connections, and a lock of the pool may never be released here.
    if pid == os.getpid():
        client.close()


def _key(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ConfigError(f"the environment variable {variable} (api_key_env) is not set; set it to the server's key")
    if not (key.isascii() and key.isprintable()):
        raise ConfigError(f"the environment variable {variable} (api_key_env) holds what no HTTP header can carry")
    return key


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

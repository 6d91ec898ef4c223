"""BM25 on an Elasticsearch server: any batch of queries is one ``msearch``.

Made for indexes of `search_env.retrieval.elasticsearch_index`: title and text are two
fields, and the better one counts most (``best_fields``). The client opens when it is first
used, belongs to the process that opened it, and is never copied or pickled, so a retriever
may be. It does not retry: what wraps a retriever does that, within its deadline.

Version 9 of the client asks for replies "compatible with 9", which a server of version 8
refuses. Here every request is plain JSON, which both majors answer, so either major of the
client works with either of the server.

Keys and passwords are read from the environment when the client opens. Settings hold only
the names of the variables, and a URL that holds a password is refused.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from search_env.errors import ConfigError, MissingDependencyError, RetrieverUnavailable
from search_env.retrieval.elasticsearch_bodies import (
    MAX_TOP_K,
    SearchFailure,
    msearch_lines,
    read_indexes,
    read_reply,
    safe_query,
    search_body,
)
from search_env.secrets import VariableName, masked, shown_cause
from search_env.types import Document, Hit

__all__ = ["ElasticsearchRetriever", "ElasticsearchSettings", "describe"]

_COMPATIBLE = re.compile(r"application/vnd\.elasticsearch\+([\w-]+); *compatible-with=\d+")
_MAX_PROBLEM = 300
_HIDDEN = ("api_key", "username", "password")


class ElasticsearchSettings(BaseModel):
    """Where an index is and how it is reached."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, use_attribute_docstrings=True)

    url: str
    """Address of the server, for example ``http://127.0.0.1:9200``."""
    index: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,199}$")
    """Alias of the index to search."""
    timeout_s: float = Field(default=30.0, gt=0)
    """Seconds that one batch of queries may take."""
    api_key_env: VariableName | None = None
    """Name of the environment variable that holds the API key."""
    username_env: VariableName | None = None
    """Name of the environment variable that holds the user's name."""
    password_env: VariableName | None = None
    """Name of the environment variable that holds the password."""
    ca_file_env: VariableName | None = None
    """Name of the environment variable that holds the path of the certificate authority's file (PEM)."""

    @field_validator("url")
    @classmethod
    def _plain_url(cls, url: str) -> str:
        # The messages never repeat the URL: what is wrong with it may be a password.
        try:
            parts = urlsplit(url)
            usual = {"http": 80, "https": 443}[parts.scheme]
            port = parts.port or usual  # The client wants it spelt out.
        except (KeyError, ValueError):
            raise ValueError("must be http://HOST:PORT or https://HOST:PORT") from None
        if not parts.hostname:
            raise ValueError("must be http://HOST:PORT or https://HOST:PORT; the host is missing")
        if parts.username is not None or parts.password is not None:
            raise ValueError("must not hold a user or password; put them in variables: username_env and password_env")
        if parts.query or parts.fragment:
            raise ValueError("must not hold a query or fragment; end it after the port or path")
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        return f"{parts.scheme}://{host}:{port}{parts.path.rstrip('/')}"

    @model_validator(mode="after")
    def _one_login(self) -> ElasticsearchSettings:
        if (self.username_env is None) != (self.password_env is None):
            raise ValueError("username_env and password_env go together; give both or neither")
        if self.api_key_env is not None and self.username_env is not None:
            raise ValueError("give either api_key_env or username_env with password_env, not both")
        return self

    @property
    def engine(self) -> str:
        """Name of the engine, as in configs."""
        return "elasticsearch"

    def build(self, documents: Sequence[Document] = ()) -> ElasticsearchRetriever:
        """A retriever over the index; nothing is sent yet.

        Args:
            documents: Not used: the server has its own.
        """
        return ElasticsearchRetriever(self)

    def connect(self, *, timeout_s: float | None = None, retries: int = 0) -> Any:
        """Open a client.

        Args:
            timeout_s: Seconds for one request; None for those of the settings.
            retries: How often a request is sent again after a lost connection, a timeout, 502, 503 or 504.

        Raises:
            ConfigError: If a named environment variable is not set.
            MissingDependencyError: If the client's package is not installed.
        """
        elasticsearch = self._package()
        from elastic_transport import Urllib3HttpNode

        class PlainJsonNode(Urllib3HttpNode):
            def perform_request(self, *target: Any, **request: Any) -> Any:
                return super().perform_request(*target, **_plain_json(request))

        return elasticsearch.Elasticsearch(**self._options(PlainJsonNode, timeout_s, retries))

    def connect_async(self) -> Any:
        """Open a client for coroutines.

        Raises:
            ConfigError: If a named environment variable is not set.
            MissingDependencyError: If the client's package or aiohttp is not installed.
        """
        elasticsearch = self._package(asynchronous=True)
        from elastic_transport import AiohttpHttpNode

        class PlainJsonNode(AiohttpHttpNode):
            async def perform_request(self, *target: Any, **request: Any) -> Any:  # type: ignore[override]
                return await super().perform_request(*target, **_plain_json(request))

        return elasticsearch.AsyncElasticsearch(**self._options(PlainJsonNode, None, 0))

    def failures(self) -> tuple[type[Exception], ...]:
        """What the client raises when a request fails; where the server replied, with a ``status_code``."""
        elasticsearch = self._package()
        return elasticsearch.ApiError, elasticsearch.TransportError

    def streaming_bulk(self, client: Any, actions: Iterator[dict[str, Any]], **options: Any) -> Any:
        """The client's helper of that name."""
        self._package()
        from elasticsearch.helpers import streaming_bulk

        return streaming_bulk(client, actions, retry_on_status=(429,), **options)

    def secrets(self) -> dict[str, str]:
        """The values behind the names: ``api_key``, ``username``, ``password`` and ``ca_file``, those that are named.

        Raises:
            ConfigError: If a named environment variable is not set, or the CA file is not there.
        """
        values = {}
        for what in ("api_key", "username", "password", "ca_file"):
            variable = getattr(self, f"{what}_env")
            if variable is None:
                continue
            if not os.environ.get(variable):
                raise ConfigError(f"{what}_env names the environment variable {variable}, which is not set; export it")
            values[what] = os.environ[variable]
        if "ca_file" in values and not os.path.isfile(values["ca_file"]):
            raise ConfigError(f"ca_file_env: the path in {self.ca_file_env} is not a file; give that of a PEM file")
        return values

    def hidden(self) -> tuple[str, ...]:
        """What no message may show: key and password, and the login as a header carries it."""
        secrets = {what: os.environ.get(getattr(self, f"{what}_env") or "", "") for what in _HIDDEN}
        login = f"{secrets['username']}:{secrets['password']}".encode(errors="replace")
        return secrets["api_key"], secrets["password"], base64.b64encode(login).decode() if self.password_env else ""

    def _options(self, node_class: type, timeout_s: float | None, retries: int) -> dict[str, Any]:
        secrets = self.secrets()
        options: dict[str, Any] = {}
        if "api_key" in secrets:
            options["api_key"] = secrets["api_key"]
        if "username" in secrets:
            options["basic_auth"] = (secrets["username"], secrets["password"])
        if "ca_file" in secrets:
            options["ca_certs"] = secrets["ca_file"]
        return options | {
            "hosts": [self.url],
            "node_class": node_class,
            "request_timeout": timeout_s or self.timeout_s,
            "max_retries": retries,
            "retry_on_timeout": retries > 0,
            "retry_on_status": (502, 503, 504),
        }

    def _package(self, asynchronous: bool = False) -> Any:
        try:
            import elasticsearch

            if asynchronous:
                import aiohttp  # noqa: F401
        except ImportError as error:
            raise MissingDependencyError(
                f"searching Elasticsearch needs the package {error.name}: pip install 'search-env[elasticsearch]'"
            ) from error
        return elasticsearch


class ElasticsearchRetriever:
    """Searches an index on a server; free to be pickled, copied, forked and shared by threads.

    Args:
        settings: Of this engine, or of one that speaks the same, such as OpenSearch.
    """

    def __init__(self, settings: ElasticsearchSettings) -> None:
        self.settings = settings
        self._fingerprint: str | None = None
        self._clients: dict[int, Any] = {}  # process id -> the client it opened
        self._async_clients: dict[asyncio.AbstractEventLoop, Any] = {}

    @property
    def fingerprint(self) -> str:
        """The engine and a hash of body, mappings and the real index behind the alias; asked of the server once.

        Raises:
            RetrieverUnavailable: If the server does not tell.
        """
        if self._fingerprint is None:
            client = self._client()
            with self._unavailable():
                indexes = read_indexes(client.indices.get(index=self.settings.index))
            searched = [self.settings.engine, search_body("", top_k=1, timeout_s=1), indexes]
            digest = hashlib.sha256(json.dumps(searched, sort_keys=True).encode()).hexdigest()
            self._fingerprint = f"{self.settings.engine}-{digest[:16]}"
        return self._fingerprint

    def search(self, queries: Sequence[str], top_k: int) -> list[tuple[Hit, ...]]:
        """Run a batch of queries in one request, each different one once; see `Retriever.search`.

        Raises:
            ConfigError: If `top_k` is out of range, or a named environment variable is not set.
            RetrieverUnavailable: If the request fails, or any search in it fails in whole or in part.
        """
        texts, request = self._request(queries, top_k)
        with self._unavailable():
            return _in_order(texts, self._client().msearch(**request)) if texts else []

    async def search_async(self, queries: Sequence[str], top_k: int) -> list[tuple[Hit, ...]]:
        """`search` for coroutines, with one client for each event loop; `close_async` it before the loop ends."""
        texts, request = self._request(queries, top_k)
        with self._unavailable():
            return _in_order(texts, await self._async_client().msearch(**request)) if texts else []

    def close(self) -> None:
        """Close the connections of this process; the next search opens new ones."""
        if client := self._clients.pop(os.getpid(), None):
            client.close()

    async def close_async(self) -> None:
        """Close the connections of this event loop; the next search opens new ones."""
        if client := self._async_clients.pop(asyncio.get_running_loop(), None):
            await client.close()

    def _request(self, queries: Sequence[str], top_k: int) -> tuple[list[str], dict[str, Any]]:
        """The query strings, and the arguments of the ``msearch`` for the different ones among them."""
        if not 1 <= top_k <= MAX_TOP_K:
            raise ConfigError(f"top_k is the number of documents to return: 1 to {MAX_TOP_K:,} of them, got {top_k}")
        texts = [safe_query(query) for query in queries]
        lines = msearch_lines(list(dict.fromkeys(texts)), top_k=top_k, timeout_s=self.settings.timeout_s)
        # Term statistics of all shards, so that a score does not depend on the shard; with one shard it costs nothing.
        return texts, {"index": self.settings.index, "body": lines, "search_type": "dfs_query_then_fetch"}

    def _client(self) -> Any:
        # Another process's client stays where it is and is not touched: its sockets are in use there.
        process = os.getpid()
        return self._clients.get(process) or self._clients.setdefault(process, self.settings.connect())

    def _async_client(self) -> Any:
        loop = asyncio.get_running_loop()
        if loop not in self._async_clients:
            self._async_clients[loop] = self.settings.connect_async()
        return self._async_clients[loop]

    @contextlib.contextmanager
    def _unavailable(self) -> Iterator[None]:
        failures: tuple[type[Exception], ...] = (SearchFailure, *self.settings.failures())
        try:
            yield
        except failures as error:
            where = f"{self.settings.engine} index {self.settings.index!r} at {self.settings.url}"
            hidden = self.settings.hidden()
            problem = f"{where} is not available: {describe(error, *hidden)}"
            raise RetrieverUnavailable(problem, transient=_is_transient(error)) from shown_cause(error, *hidden)

    def __getstate__(self) -> dict[str, Any]:
        # Open clients belong to their process, and hold keys.
        return {**self.__dict__, "_clients": {}, "_async_clients": {}}

    def __deepcopy__(self, memo: dict[int, Any]) -> ElasticsearchRetriever:
        # Gymnasium deep-copies an environment's arguments each time its spec is read.
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.settings!r})"


def describe(error: Exception, *hidden: str) -> str:
    """What a client's error says, in at most 300 characters, with ``***`` for what is to be hidden."""
    text, message = str(error), str(getattr(error, "message", ""))
    # Of a lost connection, Elastic's client keeps the reason out of the text.
    return masked(text if message in text else f"{text}: {message}", *hidden)[:_MAX_PROBLEM]


def _in_order(texts: Sequence[str], reply: Any) -> list[tuple[Hit, ...]]:
    """The documents of each query string, from the reply for the different ones among them."""
    different = list(dict.fromkeys(texts))
    found = dict(zip(different, read_reply(reply, len(different)), strict=True))
    return [found[text] for text in texts]


def _plain_json(request: dict[str, Any]) -> dict[str, Any]:
    headers = request["headers"].copy()
    for name in ("accept", "content-type"):
        if name in headers:
            headers[name] = _COMPATIBLE.sub(r"application/\1", headers[name])
    return {**request, "headers": headers}


def _is_transient(error: Exception) -> bool:
    """Whether another try may help: the server is busy or restarting, or the connection failed."""
    status = getattr(error, "status_code", None)
    if isinstance(status, int):
        return status in (429, 500, 502, 503, 504)
    return "Connection" in type(error).__name__  # both clients' names; a reply that cannot be read is another

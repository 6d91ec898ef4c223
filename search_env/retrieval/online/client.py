"""Calls of a search engine: the only place that knows the key.

The key is read from the environment when the client opens, is sent as a header, and is
in no error, log, repr or pickle. Nothing is tried twice here; an error says whether
another try is worth it.
"""

from __future__ import annotations

import os
import re
import threading
from typing import TYPE_CHECKING, Any

from search_env.errors import ConfigError, MissingDependencyError, RetrieverUnavailable
from search_env.retrieval.online.providers import SearchProvider, SearchResult
from search_env.secrets import masked, shown_cause

if TYPE_CHECKING:
    import httpx

__all__ = ["ProviderClient"]

_WORTH_A_RETRY = (429, 500, 502, 503, 504)
_QUOTA_SPENT = re.compile(r"per day|daily|credits", re.IGNORECASE)
_MAX_QUOTED = 200


class ProviderClient:
    """Asks a search engine; opened at its first call, and again in another process.

    Args:
        provider: Knows the search engine.
        key_env: Environment variable that holds the key; None for the provider's own.
        timeout_s: Seconds to wait for the engine to connect, and for each part of its reply.
        transport: Carries the requests; None for the network.
    """

    def __init__(
        self,
        provider: SearchProvider,
        key_env: str | None,
        timeout_s: float,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._provider = provider
        self._key_env = provider.key_env if key_env is None else key_env
        self._timeout_s = timeout_s
        self._transport = transport
        self._lock = threading.Lock()
        self._opened: tuple[int, httpx.Client, str] | None = None

    def search(self, query: str) -> list[SearchResult]:
        """Run one query.

        Raises:
            ConfigError: If the environment does not hold the key.
            RetrieverUnavailable: If the call failed, or its reply cannot be read.
        """
        name = self._provider.name
        client, key = self._client()
        import httpx

        try:
            reply = client.send(client.build_request(**self._provider.request(query)))
        except httpx.RequestError as error:
            lost = isinstance(error, httpx.TimeoutException | httpx.NetworkError | httpx.RemoteProtocolError)
            problem = masked(f"{type(error).__name__}: {error}", key)
            raise RetrieverUnavailable(f"{name} cannot be reached: {problem}", transient=lost) from shown_cause(
                error, key
            )
        if reply.status_code != 200:
            raise self._refused(reply.status_code, reply.text, key)
        try:
            return self._provider.read(reply.content)
        except ValueError as error:
            # pydantic's text is several lines, and none of them quotes the reply.
            problem = " ".join(str(error).split())
            raise RetrieverUnavailable(f"{name} gave a reply that cannot be read: {problem}") from error

    def _refused(self, status: int, text: str, key: str) -> RetrieverUnavailable:
        # Masked before it is cut: half a key is too much of it.
        quoted = " ".join(masked(text, key).split())[:_MAX_QUOTED]
        readable = "".join(character if character.isprintable() else "?" for character in quoted)
        hint = ""
        if status in (401, 403):
            hint = (
                f" Check the key in the environment variable {self._key_env}."
                if self._key_env
                else " Allow the format json in the server's settings.yml."
            )
        spent = status == 429 and _QUOTA_SPENT.search(text) is not None
        message = f"{self._provider.name} refused a search with status {status}: {readable}{hint}"
        return RetrieverUnavailable(message, transient=status in _WORTH_A_RETRY and not spent)

    def _client(self) -> tuple[httpx.Client, str]:
        with self._lock:
            if self._opened is None or self._opened[0] != os.getpid():
                self._opened = (os.getpid(), *self._open())
            return self._opened[1:]

    def _open(self) -> tuple[httpx.Client, str]:
        try:
            import httpx
        except ImportError as error:
            raise MissingDependencyError("online search needs httpx. Run: pip install 'search-env[online]'") from error
        key = self._key()
        headers = {self._provider.key_header: key} if key else {}
        # A redirect would carry the key to another host.
        client = httpx.Client(
            headers=headers, timeout=self._timeout_s, follow_redirects=False, transport=self._transport
        )
        return client, key

    def _key(self) -> str:
        if self._key_env is None:
            return ""
        key = os.environ.get(self._key_env, "").strip()
        if not key or not key.isascii() or not key.isprintable():
            raise ConfigError(
                f"{self._provider.name} needs a key in the environment variable {self._key_env}, which is not set or "
                f"holds no key. Write: export {self._key_env}=..."
            )
        return key

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_opened": None, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())

"""BM25 on an OpenSearch server: Elasticsearch's requests through OpenSearch's own client.

Elastic's client refuses servers that are not Elastic's. Bodies, replies and behaviour are
those of `search_env.retrieval.elasticsearch`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from search_env.errors import MissingDependencyError
from search_env.retrieval.elasticsearch import ElasticsearchSettings

__all__ = ["OpenSearchSettings"]


class OpenSearchSettings(ElasticsearchSettings):
    """Where an index on an OpenSearch server is and how it is reached."""

    @property
    def engine(self) -> str:
        """Name of the engine, as in configs."""
        return "opensearch"

    def connect(self, *, timeout_s: float | None = None, retries: int = 0) -> Any:
        """Open a client; see `ElasticsearchSettings.connect`."""
        return self._package().OpenSearch(**self._client_options(timeout_s, retries))

    def connect_async(self) -> Any:
        """Open a client for coroutines; see `ElasticsearchSettings.connect_async`."""
        return self._package(asynchronous=True).AsyncOpenSearch(**self._client_options(None, 0))

    def failures(self) -> tuple[type[Exception], ...]:
        """What the client raises when a request fails; where the server replied, with a ``status_code``."""
        return (self._package().exceptions.OpenSearchException,)

    def streaming_bulk(self, client: Any, actions: Iterator[dict[str, Any]], **options: Any) -> Any:
        """The client's helper of that name, which sends again what is refused with 429."""
        return self._package().helpers.streaming_bulk(client, actions, **options)

    def _client_options(self, timeout_s: float | None, retries: int) -> dict[str, Any]:
        secrets = self.secrets()
        options: dict[str, Any] = {}
        if "api_key" in secrets:
            options["headers"] = {"authorization": f"ApiKey {secrets['api_key']}"}
        if "username" in secrets:
            options["http_auth"] = (secrets["username"], secrets["password"])
        if "ca_file" in secrets:
            options["ca_certs"] = secrets["ca_file"]
        return options | {
            "hosts": [self.url],
            "timeout": timeout_s or self.timeout_s,
            "max_retries": retries,
            "retry_on_timeout": retries > 0,
        }

    def _package(self, asynchronous: bool = False) -> Any:
        try:
            import opensearchpy

            if asynchronous:
                import aiohttp  # noqa: F401
        except ImportError as error:
            raise MissingDependencyError(
                f"searching OpenSearch needs the package {error.name}: pip install 'search-env[opensearch]'"
            ) from error
        return opensearchpy

"""Settings of the retriever ``online``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from search_env.retrieval.online.providers import Google, SearchProvider, SearxNG, Serper
from search_env.secrets import VariableName
from search_env.types import Document

if TYPE_CHECKING:
    from search_env.retrieval.online.retriever import OnlineRetriever, Summarizer

__all__ = ["OnlineSettings"]


class OnlineSettings(BaseModel):
    """Which search engine is asked, what becomes of its results, and what that may cost."""

    # A key that was written where the name of a variable belongs must not show in the error about it.
    model_config = ConfigDict(
        extra="forbid", frozen=True, use_attribute_docstrings=True, allow_inf_nan=False, hide_input_in_errors=True
    )

    provider: Literal["serper", "google", "searxng"]
    """The search engine: serper (Google's results), google (Programmable Search), searxng (a server of yours)."""
    api_key_env: VariableName | None = None
    """NAME of the environment variable that holds the key; default SERPER_API_KEY or GOOGLE_API_KEY."""
    engine_id: str | None = None
    """google only: the id of the Programmable Search Engine (cx)."""
    url: str | None = None
    """searxng only: the address of the server."""
    site: str | None = None
    """Search this site only: en.wikipedia.org."""
    fetch_pages: NonNegativeInt = 3
    """Results of a search whose pages are read; of the others the engine's snippet is used."""
    page_chars: PositiveInt = 35_000
    """Characters of a page that are looked at."""
    document_chars: PositiveInt = 2_000
    """Characters of a document: the passage of the page that shares the most words with the query, or its summary."""
    timeout_s: PositiveFloat = 20.0
    """Seconds to wait for the search engine."""
    page_timeout_s: PositiveFloat = 10.0
    """Seconds that a page may take, redirects included."""
    max_page_bytes: PositiveInt = 2_000_000
    """The largest page that is read; a larger one counts as unreachable."""
    concurrency: PositiveInt = 8
    """Calls and pages under way at the same time."""
    price_per_call: NonNegativeFloat = 0.0
    """What the engine takes for one call, in any currency."""
    max_calls: NonNegativeInt | None = None
    """Calls that one process may make; no limit by default."""
    max_cost: NonNegativeFloat | None = None
    """What the calls of one process may cost, by price_per_call; no limit by default."""
    cache: Path | None = None
    """File that keeps results and pages; default: online.sqlite3 in the cache folder."""
    cache_hours: NonNegativeFloat = 24.0
    """Hours after which a search or page is asked for anew; 0 keeps nothing."""

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        for provider, setting in (("google", "engine_id"), ("searxng", "url")):
            if (self.provider == provider) != (getattr(self, setting) is not None):
                raise ValueError(f"{setting} is needed by provider {provider} and allowed for no other")
        if self.api_key_env is not None and not re.fullmatch(r"[A-Z][A-Z0-9_]*", self.api_key_env):
            raise ValueError("api_key_env is the NAME of an environment variable in capitals, such as SERPER_API_KEY")
        if self.api_key_env is not None and self.provider == "searxng":
            raise ValueError("searxng takes no key: leave api_key_env out")
        if self.url is not None and not _is_plain_address(self.url):
            raise ValueError("url is the http(s) address of a SearxNG server without user name: http://localhost:8888")
        if self.site is not None and not re.fullmatch(r"[a-z0-9-]+(\.[a-z0-9-]+)+", self.site):
            raise ValueError("site is a host name in small letters, such as en.wikipedia.org")
        if self.max_cost is not None and self.price_per_call == 0:
            raise ValueError("max_cost limits nothing without price_per_call")
        return self

    def build(self, documents: Sequence[Document] = (), summarize: Summarizer | None = None) -> OnlineRetriever:
        """Make the retriever; nothing is called yet.

        Args:
            documents: Not used: the corpus is the web.
            summarize: What makes a page a document; None for its best passage.

        Raises:
            ConfigError: If the cache cannot be used.
            MissingDependencyError: If an optional package is missing.
        """
        from search_env.retrieval.online.retriever import OnlineRetriever

        return OnlineRetriever(self, summarize=summarize)

    def search_provider(self) -> SearchProvider:
        """The search engine."""
        if self.engine_id is not None:
            return Google(self.engine_id)
        return Serper() if self.url is None else SearxNG(self.url)


def _is_plain_address(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in url and not parts.query
    except ValueError:
        return False

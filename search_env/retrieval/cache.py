"""A cache of searches, in memory and on disk: the same search is not paid for twice.

The latest searches are kept in memory. With a file, all of them are kept there as well,
and several processes may share it; deleting it empties the cache. A search counts under
the fingerprint of the retriever, so that one cache may serve several. Only results are
kept, never a failure.

A cache is there to save work: if its file fails, the search goes on without it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from search_env.errors import ConfigError
from search_env.retrieval.base import Retriever
from search_env.retrieval.cassette import address, hits_from_records, hits_to_records
from search_env.types import Document, Hit

__all__ = ["CachedRetriever", "CachedSettings"]

_LOG = logging.getLogger(__name__)
_LOCKED_S = 5.0  # how long to wait for another process that writes


class CachedSettings(BaseModel):
    """Settings of the retriever ``cached``."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    of: Any
    """The retriever whose searches are cached: its name, or a mapping with its settings."""
    max_entries: int = Field(default=10_000, ge=0)
    """The most searches kept in memory, the least recently used going first."""
    path: Path | None = None
    """SQLite file that keeps all searches, for later runs and other processes; None keeps them in memory only."""
    expires_s: float | None = Field(default=None, gt=0)
    """Seconds after which a search is run again; None if the corpus never changes."""

    def build(self, documents: Sequence[Document]) -> CachedRetriever:
        """Make the retriever; see `RetrieverSettings.build`."""
        from search_env.retrieval import get_retriever

        return CachedRetriever(get_retriever(self.of, documents), self)


class CachedRetriever:
    """Searches with another retriever what is not in the cache; free to be pickled, copied, forked, shared by threads.

    Args:
        inner: The retriever that searches.
        settings: What is kept.
        now: The time, in seconds that mean the same to all processes.

    Raises:
        ConfigError: If the file is no cache or cannot be written.
    """

    def __init__(self, inner: Retriever, settings: CachedSettings, now: Callable[[], float] = time.time) -> None:
        self._inner = inner
        self._settings = settings
        self._now = now
        self._memory: OrderedDict[str, _Kept] = OrderedDict()
        self._path = None if settings.path is None else settings.path.expanduser()
        if self._path is not None:
            _prepare(self._path)

    @property
    def fingerprint(self) -> str:
        """That of the inner retriever, whose results these are."""
        return self._inner.fingerprint

    def search(self, queries: Sequence[str], top_k: int) -> list[tuple[Hit, ...]]:
        """Run a batch of queries, those that are not in the cache in one call; see `Retriever.search`.

        Raises:
            RetrieverUnavailable: If the inner retriever failed for good.
        """
        source, now = self._inner.fingerprint, self._now()
        keys = {query: address(source, query, top_k) for query in queries}
        found = self._look_up(keys.values(), oldest=now - (self._settings.expires_s or float("inf")))
        missing = [query for query, key in keys.items() if key not in found]
        if missing:
            results = self._inner.search(missing, top_k)
            fresh = {keys[query]: _Kept(now, hits) for query, hits in zip(missing, results, strict=True)}
            self._remember(fresh)
            self._write(fresh)
            found |= fresh
        return [found[keys[query]].hits for query in queries]

    def _look_up(self, keys: Iterable[str], oldest: float) -> dict[str, _Kept]:
        known = {key: kept for key in keys if (kept := self._memory.get(key)) is not None}
        read = self._read([key for key in keys if key not in known or known[key].since <= oldest])
        found = {key: kept for key, kept in {**known, **read}.items() if kept.since > oldest}
        self._remember(found)
        return found

    def _remember(self, kept: Mapping[str, _Kept]) -> None:
        # Without a lock, which a fork could leave locked: each of these operations is atomic.
        for key, value in kept.items():
            self._memory[key] = value
            with contextlib.suppress(KeyError):
                self._memory.move_to_end(key)
        while len(self._memory) > self._settings.max_entries:
            with contextlib.suppress(KeyError):
                self._memory.popitem(last=False)

    def _read(self, keys: Sequence[str]) -> dict[str, _Kept]:
        if self._path is None:
            return {}
        found = {}
        try:
            with _open(self._path) as database:
                for key in keys:
                    row = database.execute("SELECT since, hits FROM searches WHERE key = ?", (key,)).fetchone()
                    if row is not None:
                        found[key] = _Kept(float(row[0]), hits_from_records(json.loads(row[1])))
        except (sqlite3.Error, KeyError, TypeError, ValueError) as error:
            _LOG.warning("the cache %s cannot be read, the search goes on without it: %s", self._path, error)
        return found

    def _write(self, kept: Mapping[str, _Kept]) -> None:
        if self._path is None:
            return
        rows = [(key, value.since, json.dumps(hits_to_records(value.hits))) for key, value in kept.items()]
        try:
            with _open(self._path) as database, database:
                database.executemany("INSERT OR REPLACE INTO searches VALUES (?, ?, ?)", rows)
        except sqlite3.Error as error:
            _LOG.warning("the cache %s cannot be written, the search goes on without it: %s", self._path, error)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_memory": OrderedDict()}

    def __deepcopy__(self, memo: dict[int, Any]) -> CachedRetriever:
        # Gymnasium deep-copies an environment's arguments each time its spec is read.
        return self


class _Kept(NamedTuple):
    """The result of a search, and since when it is known."""

    since: float
    hits: tuple[Hit, ...]


def _open(path: Path) -> contextlib.closing[sqlite3.Connection]:
    # For each batch anew: a connection must not outlive a fork, nor change threads.
    return contextlib.closing(sqlite3.connect(path, timeout=_LOCKED_S))


def _prepare(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _open(path) as database, database:
            database.execute("CREATE TABLE IF NOT EXISTS searches (key TEXT PRIMARY KEY, since REAL, hits TEXT)")
            database.execute("SELECT key, since, hits FROM searches LIMIT 1")
    except (OSError, sqlite3.Error) as error:
        raise ConfigError(
            f"the cache {path} cannot be used: {error}. Name a file in a folder of yours; if it is a damaged cache, "
            "delete it."
        ) from error

"""Results and pages kept for a while, so that the same search is not paid for twice.

One file for any number of processes. The cache is there to save calls: if its file
fails, the search goes on without it, with a warning.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

from search_env.errors import ConfigError

__all__ = ["ExpiringCache"]

_LOG = logging.getLogger(__name__)
_LOCKED_S = 5.0  # how long to wait for another process that writes


class ExpiringCache:
    """Text by key, forgotten after a time; free to be pickled, forked and shared by threads.

    Args:
        path: The SQLite file.
        expires_s: Seconds after which an entry is forgotten; 0 keeps nothing.
        now: The time, in seconds that mean the same to all processes.

    Raises:
        ConfigError: If the file is no cache or cannot be written.
    """

    def __init__(self, path: Path, expires_s: float, now: Callable[[], float] = time.time) -> None:
        self._path = path
        self._expires_s = expires_s
        self._now = now
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with self._open() as database, database:
                database.execute("CREATE TABLE IF NOT EXISTS online (key TEXT PRIMARY KEY, since REAL, value TEXT)")
                database.execute("DELETE FROM online WHERE since <= ?", (self._oldest(),))
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(
                f"the cache of online searches {path} cannot be used: {error}. Name another file; if it is a damaged "
                "cache, delete it."
            ) from error

    def get(self, key: str) -> str | None:
        """What is kept under a key; None if nothing is, or not any more."""
        try:
            with self._open() as database:
                row = database.execute(
                    "SELECT value FROM online WHERE key = ? AND since > ?", (key, self._oldest())
                ).fetchone()
        except sqlite3.Error as error:
            _LOG.warning("the cache %s cannot be read, the search goes on without it: %s", self._path, error)
            return None
        return None if row is None else str(row[0])

    def put(self, key: str, value: str) -> None:
        """Keep a text from now on."""
        try:
            with self._open() as database, database:
                database.execute("INSERT OR REPLACE INTO online VALUES (?, ?, ?)", (key, self._now(), value))
        except sqlite3.Error as error:
            _LOG.warning("the cache %s cannot be written, the search goes on without it: %s", self._path, error)

    def _oldest(self) -> float:
        return self._now() - self._expires_s

    def _open(self) -> contextlib.closing[sqlite3.Connection]:
        # Anew each time: a connection must not outlive a fork nor change threads, and a call of the web takes longer.
        return contextlib.closing(sqlite3.connect(self._path, timeout=_LOCKED_S))

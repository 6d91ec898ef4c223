"""Searches kept on file, to be run again without the engine: exactly, anywhere, for nothing.

A cassette is a JSONL file. A line is one search, under a hash of everything that decides
its result::

    {"key": …, "retriever": "bm25-…", "query": …, "top_k": 3, "hits": [{"id": …, "title": …, "text": …, "score": …}]}

It holds the searches of one retriever. What is on it counts: while recording, a search
that is there is not run again, be it of another process that records to the same file.
Lines are appended under a lock and whole; a last line that a crash or a full disk has
torn is no line, and its search is recorded again.

A query cache of R1-Searcher is a cassette too, to replay only. Its lines,
``{"query": …, "docs": [{"title": …, "text": …}]}``, know neither scores nor the number of
documents asked for: a document's score is 1 / rank, its id a hash of its words, and a
search for fewer documents returns the first ones.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from io import FileIO
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict

from search_env.errors import ConfigError, DatasetError, RetrieverError, RetrieverUnavailable
from search_env.retrieval.base import Retriever
from search_env.types import Document, Hit

__all__ = [
    "RecordedSettings",
    "RecordingRetriever",
    "ReplayRetriever",
    "ReplaySettings",
    "address",
    "hits_from_records",
    "hits_to_records",
]

_QUERY_CACHE = "r1-searcher query cache"


class RecordedSettings(BaseModel):
    """Settings of the retriever ``recorded``."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    of: Any
    """The retriever whose searches are recorded: its name, or a mapping with its settings."""
    cassette: Path
    """File that keeps the searches; made if it is not there, continued if it is."""

    def build(self, documents: Sequence[Document]) -> RecordingRetriever:
        """Make the retriever; see `RetrieverSettings.build`."""
        from search_env.retrieval import get_retriever

        return RecordingRetriever(get_retriever(self.of, documents), self.cassette)


class ReplaySettings(BaseModel):
    """Settings of the retriever ``replay``."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    cassette: Path
    """File of recorded searches, or a query cache of R1-Searcher."""

    def build(self, documents: Sequence[Document]) -> ReplayRetriever:
        """Make the retriever; see `RetrieverSettings.build`."""
        return ReplayRetriever(self.cassette)


class RecordingRetriever:
    """Searches with another retriever and keeps each search; free to be pickled, copied, forked and shared by threads.

    Args:
        inner: The retriever that searches what is not on the cassette yet.
        cassette: The file.

    Raises:
        ConfigError: If the file cannot be written, or holds the searches of another retriever.
        DatasetError: If a line of it is malformed.
    """

    def __init__(self, inner: Retriever, cassette: str | Path) -> None:
        self._inner = inner
        self._path = Path(cassette).expanduser()
        self._tape = _Tape()
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._record(())
        except OSError as error:
            raise ConfigError(
                f"the cassette {self._path} cannot be written: {error}. Name a file in a folder of yours."
            ) from error

    @property
    def fingerprint(self) -> str:
        """That of the inner retriever, whose results these are."""
        return self._inner.fingerprint

    def search(self, queries: Sequence[str], top_k: int) -> list[tuple[Hit, ...]]:
        """Run a batch of queries, those that are not on the cassette in one call; see `Retriever.search`.

        Raises:
            RetrieverUnavailable: If the inner retriever failed for good, or its results cannot be recorded.
        """
        source = self._inner.fingerprint
        self._check_source(source)
        keys = {query: address(source, query, top_k) for query in queries}
        missing = [query for query, key in keys.items() if key not in self._tape.hits]
        if missing:
            results = self._inner.search(missing, top_k)
            entries = [_Entry(source, query, top_k, hits) for query, hits in zip(missing, results, strict=True)]
            try:
                self._record(entries)
            except OSError as error:
                raise RetrieverUnavailable(
                    f"a search cannot be recorded on {self._path}: {error}. Make room there and run again."
                ) from error
        return [self._tape.hits[keys[query]] for query in queries]

    def _record(self, entries: Sequence[_Entry]) -> None:
        """Read what other processes have added, then add what is still missing."""
        tape = self._tape
        with self._path.open("ab", buffering=0) as file:
            # Each opening has a lock of its own, so this one keeps threads apart as well as processes.
            fcntl.flock(file, fcntl.LOCK_EX)
            try:
                tape.read(self._path)
                for entry in entries:
                    self._check_source(entry.source)
                _append(file, tape, "".join(entry.line() for entry in entries if entry.key not in tape.hits))
                tape.read(self._path)
            finally:
                # Explicitly: a child that was forked meanwhile has the file open, too.
                fcntl.flock(file, fcntl.LOCK_UN)

    def _check_source(self, source: str) -> None:
        if self._tape.source not in (None, source):
            raise ConfigError(
                f"the cassette {self._path} holds the searches of {self._tape.source}, this retriever is {source}; "
                "record to another file"
            )

    def __getstate__(self) -> dict[str, Any]:
        # The file has it all.
        return {**self.__dict__, "_tape": _Tape()}

    def __deepcopy__(self, memo: dict[int, Any]) -> RecordingRetriever:
        # Gymnasium deep-copies an environment's arguments each time its spec is read.
        return self


class ReplayRetriever:
    """Returns recorded searches, and nothing else; immutable.

    A search that was not recorded is an error of another kind than a failed search: running it again cannot help, so
    it ends the run and not the episode.

    Args:
        cassette: File of recorded searches, or a query cache of R1-Searcher.

    Raises:
        ConfigError: If there is no such file.
        DatasetError: If it is empty or a line of it is malformed.
    """

    def __init__(self, cassette: str | Path) -> None:
        self._path = Path(cassette).expanduser()
        self._tape = _Tape()
        try:
            self._tape.read(self._path)
        except OSError as error:
            raise ConfigError(
                f"the cassette {self._path} cannot be read: {error}. Record one: "
                f"{{name: recorded, cassette: {self._path}, of: bm25}}."
            ) from error
        if not self._tape.hits:
            raise DatasetError(f"the cassette {self._path} holds no search; record one first")

    @cached_property
    def fingerprint(self) -> str:
        """``replay-`` and a hash of the searches; the order of the lines does not count."""
        digest = hashlib.sha256()
        for key in sorted(self._tape.hits):
            digest.update(f"{key} {json.dumps(hits_to_records(self._tape.hits[key]))}\n".encode())
        return f"replay-{digest.hexdigest()[:16]}"

    def search(self, queries: Sequence[str], top_k: int) -> list[tuple[Hit, ...]]:
        """Look a batch of queries up; see `Retriever.search`.

        Raises:
            RetrieverError: If a search was not recorded; names it.
        """
        return [self._search_one(query, top_k) for query in queries]

    def _search_one(self, query: str, top_k: int) -> tuple[Hit, ...]:
        tape = self._tape
        try:
            if tape.source == _QUERY_CACHE:
                return tape.hits[address(_QUERY_CACHE, query, None)][:top_k]
            return tape.hits[address(tape.source or "", query, top_k)]
        except KeyError:
            raise RetrieverError(
                f"the cassette {self._path} has no search for {query!r} with top_k {top_k}. Replay with the settings "
                f"of the recording, or record this search, too: {{name: recorded, cassette: …, of: …}}."
            ) from None

    def __deepcopy__(self, memo: dict[int, Any]) -> ReplayRetriever:
        return self


def address(source: str, query: str, top_k: int | None) -> str:
    """The hash of everything that decides the result of a search.

    Args:
        source: Fingerprint of the retriever.
        query: Any text at all.
        top_k: Number of documents asked for; None if that is not known.
    """
    # JSON, for it keeps the parts apart and has a form for text that UTF-8 has none for.
    return hashlib.sha256(json.dumps([source, query, top_k]).encode()).hexdigest()


def hits_to_records(hits: Iterable[Hit]) -> list[dict[str, Any]]:
    """Hits as plain values that JSON can hold."""
    return [
        {"id": hit.document.id, "title": hit.document.title, "text": hit.document.text, "score": float(hit.score)}
        for hit in hits
    ]


def hits_from_records(records: Iterable[Mapping[str, Any]]) -> tuple[Hit, ...]:
    """The reverse of `hits_to_records`.

    Raises:
        KeyError, TypeError, ValueError: If a record is none.
    """
    return tuple(
        Hit(
            document=Document(id=str(record["id"]), title=str(record["title"]), text=str(record["text"])),
            score=float(record["score"]),
        )
        for record in records
    )


class _Entry(NamedTuple):
    """One search."""

    source: str
    query: str
    top_k: int | None
    hits: tuple[Hit, ...]

    @property
    def key(self) -> str:
        return address(self.source, self.query, self.top_k)

    def line(self) -> str:
        record = {"key": self.key, "retriever": self.source, "query": self.query, "top_k": self.top_k}
        return json.dumps({**record, "hits": hits_to_records(self.hits)}) + "\n"


class _Tape:
    """What was read of a cassette so far."""

    def __init__(self) -> None:
        self.hits: dict[str, tuple[Hit, ...]] = {}
        self.source: str | None = None
        self.end = 0
        """Where the last whole line ends."""
        self.complete = True
        """Whether that line has its newline."""
        self._lines = 0

    def read(self, path: Path) -> None:
        """Read the lines that were added; of two lines for one search the first counts.

        Raises:
            DatasetError: If a whole line is malformed, or the lines are of several retrievers.
        """
        with path.open("rb") as file:
            file.seek(self.end)
            for line in file:
                if not line.endswith(b"\n") and not _is_json(line):
                    break  # torn
                if line.strip():
                    self._add(_entry(line, f"{path}:{self._lines + 1}"), f"{path}:{self._lines + 1}")
                self.end += len(line)
                self.complete = line.endswith(b"\n")
                self._lines += self.complete

    def _add(self, entry: _Entry, where: str) -> None:
        if self.source not in (None, entry.source):
            raise DatasetError(
                f"{where}: this search is of {entry.source}, those before it are of {self.source}; a cassette holds "
                "the searches of one retriever"
            )
        self.source = entry.source
        self.hits.setdefault(entry.key, entry.hits)


def _append(file: FileIO, tape: _Tape, lines: str) -> None:
    """Put lines behind the last whole one: all of them, or none if the disk is full."""
    file.truncate(tape.end)
    data = (b"" if tape.complete or not lines else b"\n") + lines.encode()
    try:
        while data:
            data = data[file.write(data) :]
    except OSError:
        file.truncate(tape.end)
        raise


def _is_json(line: bytes) -> bool:
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _entry(line: bytes, where: str) -> _Entry:
    try:
        record = json.loads(line)
        if "docs" in record:
            return _Entry(_QUERY_CACHE, str(record["query"]), None, _ranked(record["docs"]))
        hits = hits_from_records(record["hits"])
        return _Entry(str(record["retriever"]), str(record["query"]), int(record["top_k"]), hits)
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(
            f"{where}: no search of a cassette ({type(error).__name__}: {error}). A line is an object with retriever, "
            "query, top_k and hits, or with query and docs; delete the line, or record to another file."
        ) from error


def _ranked(documents: Iterable[Mapping[str, Any]]) -> tuple[Hit, ...]:
    hits = []
    for rank, words in enumerate(documents, start=1):
        title, text = str(words["title"]), str(words["text"])
        id_ = hashlib.sha256(json.dumps([title, text]).encode()).hexdigest()[:16]
        hits.append(Hit(document=Document(id=id_, title=title, text=text), score=1.0 / rank))
    return tuple(hits)

"""Loading a corpus into Elasticsearch or OpenSearch, so that searches never see half of it.

The alias that searches use points to an index named after the content of the corpus file
and the layout of the index. A new corpus is loaded into an index of its own, with refresh
and replicas off, counted, merged, set for searching, and only then swapped behind the alias,
in one step. The same corpus is never loaded twice.

A load that was stopped goes on: documents go in the order of the file under their own ids,
and the index itself keeps the number of rows that are surely in it. A document that the
server refuses fails the load in the end; nothing is left out in silence.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from search_env.datasets.corpora import SkippedRows, locate_documents
from search_env.datasets.files import data_files
from search_env.errors import DatasetError, RetrieverIndexError
from search_env.retrieval.elasticsearch import ElasticsearchSettings, describe
from search_env.retrieval.elasticsearch_bodies import index_body, index_layout
from search_env.secrets import shown_cause
from search_env.types import Document

__all__ = ["BuiltIndex", "build_index"]

_CHUNK_DOCUMENTS = 1_000
_CHUNK_BYTES = 10_000_000
_CHECKPOINT_ROWS = 50_000
_MAX_REFUSED = 100  # Beyond it the server is at fault, not a document.
_MAX_ID_BYTES = 512
_REQUEST_S, _MERGE_S = 120.0, 12 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class BuiltIndex:
    """An index behind its alias."""

    name: str
    """The index's own name."""
    documents: int
    """Number of documents in it."""
    replaced: tuple[str, ...]
    """The indexes that were behind the alias before."""


def build_index(
    settings: ElasticsearchSettings,
    corpus: str | Path,
    *,
    shards: int = 1,
    replicas: int = 0,
    delete_old: bool = False,
    skipped: SkippedRows | None = None,
    on_progress: Callable[[int], None] = lambda rows: None,
) -> BuiltIndex:
    """Load a corpus and put it behind the alias; the same call again goes on after an interruption.

    Args:
        settings: The server, and the alias as `ElasticsearchSettings.index`.
        corpus: A corpus in any format of `search_env.datasets.corpora`, read as a stream.
        shards: Primary shards; one for each 10 to 50 GB.
        replicas: Copies of each shard, made after the load.
        delete_old: Delete what was behind the alias, in the same step.
        skipped: Counts the malformed rows that are left out; None if there must be none.
        on_progress: Told the number of rows that are in the index, every 50,000 of them.

    Raises:
        DatasetError: If a row is malformed, or an id occurs twice.
        RetrieverIndexError: If the server fails or refuses a document; the alias then points where it did before.
    """
    digest = _digest(corpus, index_layout(shards))
    name = f"{settings.index}-{digest[:16]}"
    client = settings.connect(timeout_s=_REQUEST_S, retries=3)
    with contextlib.closing(client), _index_errors(settings, name):
        _behind(client, settings.index)
        progress = _Progress.open(client, name, shards)
        if not progress.complete:
            _load(settings, client, _documents(corpus, skipped or SkippedRows()), progress, on_progress)
            _check_count(client, corpus, progress)
            _merge(settings, name)
            client.indices.put_settings(
                index=name, body={"index": {"refresh_interval": None, "number_of_replicas": replicas}}
            )
            progress.save(progress.rows, complete=True)
        replaced = _swap(client, settings.index, name, delete_old=delete_old)
    return BuiltIndex(name=name, documents=progress.rows, replaced=replaced)


def _documents(path: str | Path, skipped: SkippedRows) -> Iterator[Document]:
    """The documents of a corpus one by one; ids that occur twice are found by counting the index."""
    for where, document in locate_documents(path, skipped):
        if (size := len(document.id.encode())) > _MAX_ID_BYTES:
            raise DatasetError(f"{where}: 'id' is {size} bytes long; the server takes up to {_MAX_ID_BYTES}")
        yield document


class _Progress:
    """The rows that are surely in an index, kept in the index: in the ``_meta`` of its mapping."""

    def __init__(self, client: Any, name: str, meta: dict[str, Any]) -> None:
        self._client = client
        self.name = name
        self.rows: int = meta["rows"]
        self.complete: bool = meta["complete"]

    @classmethod
    def open(cls, client: Any, name: str, shards: int) -> _Progress:
        """Of an index that was begun before, or else of a new one."""
        meta = {"rows": 0, "complete": False}
        if client.indices.exists(index=name):
            meta = client.indices.get(index=name)[name]["mappings"].get("_meta", {})
            if meta.keys() != {"rows", "complete"}:
                raise RetrieverIndexError(
                    f"the index {name} was not made by search-env; delete it, or use another name"
                )
        else:
            body = index_body(shards)
            client.indices.create(index=name, body=body | {"mappings": body["mappings"] | {"_meta": meta}})
        return cls(client, name, meta)

    def save(self, rows: int, *, complete: bool = False) -> None:
        self.rows, self.complete = rows, complete
        self._client.indices.put_mapping(index=self.name, body={"_meta": {"rows": rows, "complete": complete}})


def _load(
    settings: ElasticsearchSettings,
    client: Any,
    corpus: Iterator[Document],
    progress: _Progress,
    on_progress: Callable[[int], None],
) -> None:
    """Send the rows that are not in the index yet; one that is sent again replaces itself."""
    documents = islice(corpus, progress.rows, None)
    results = settings.streaming_bulk(
        client,
        (_action(progress.name, document) for document in documents),
        chunk_size=_CHUNK_DOCUMENTS,
        max_chunk_bytes=_CHUNK_BYTES,
        # A server that is full says 429: it is asked again after 1, 2, 4 … 60 seconds, 8 times.
        max_retries=8,
        initial_backoff=1,
        max_backoff=60,
        raise_on_error=False,
    )
    rows, refused = progress.rows, []
    for accepted, result in results:
        if not accepted:
            refused.append(_reason(result))
            if len(refused) > _MAX_REFUSED:
                break
            continue
        rows += 1
        if rows % _CHECKPOINT_ROWS == 0 and not refused:
            # Within a chunk, documents that were asked again come after later ones.
            progress.save(rows - _CHUNK_DOCUMENTS)
            on_progress(rows)
    if refused:
        count = f"{len(refused)}" if len(refused) <= _MAX_REFUSED else f"more than {_MAX_REFUSED}"
        raise RetrieverIndexError(
            f"the server refused {count} documents; the first: {'; '.join(refused[:3])}. Put that right "
            "and run the same command again."
        )
    progress.save(rows)
    on_progress(rows)


def _action(index: str, document: Document) -> dict[str, Any]:
    source = {"doc_id": document.id, "title": document.title, "text": document.text}
    return {"_op_type": "index", "_index": index, "_id": document.id, "_source": source}


def _reason(result: dict[str, Any]) -> str:
    item = result["index"]
    error = item.get("error")
    told = f"{error.get('type')}: {error.get('reason')}" if isinstance(error, dict) else str(error)
    return f"{item.get('_id')!r} ({item.get('status')}, {told[:200]})"


def _check_count(client: Any, corpus: str | Path, progress: _Progress) -> None:
    client.indices.refresh(index=progress.name)
    count = client.count(index=progress.name)["count"]
    if count == progress.rows > 0:
        return
    client.indices.delete(index=progress.name)
    if not progress.rows:
        raise DatasetError(f'{corpus}:1: holds no documents; write one {{"id", "title", "text"}} object a line')
    raise DatasetError(
        f"{corpus} has {progress.rows:,} documents, but the index holds {count:,}: some ids are used more than once. "
        "Give every document its own."
    )


def _merge(settings: ElasticsearchSettings, name: str) -> None:
    with contextlib.closing(settings.connect(timeout_s=_MERGE_S)) as patient:
        patient.indices.forcemerge(index=name, max_num_segments=1)


def _behind(client: Any, alias: str) -> tuple[str, ...]:
    """The indexes behind an alias."""
    if client.indices.exists_alias(name=alias):
        return tuple(sorted(client.indices.get_alias(name=alias)))
    if client.indices.exists(index=alias):
        raise RetrieverIndexError(f"{alias!r} is an index, and an alias of that name is needed; give another name")
    return ()


def _swap(client: Any, alias: str, name: str, *, delete_old: bool) -> tuple[str, ...]:
    replaced = tuple(index for index in _behind(client, alias) if index != name)
    actions: list[dict[str, Any]] = [{"add": {"index": name, "alias": alias}}]
    for index in replaced:
        # Only what this module made is ever deleted.
        ours = delete_old and index.startswith(f"{alias}-")
        actions.append({"remove_index": {"index": index}} if ours else {"remove": {"index": index, "alias": alias}})
    client.indices.update_aliases(body={"actions": actions})
    return replaced


def _digest(corpus: str | Path, layout: str) -> str:
    digests = []
    for path in data_files(corpus):
        try:
            with path.open("rb") as file:
                digests.append(hashlib.file_digest(file, "sha256").hexdigest())
        except OSError as error:
            raise DatasetError(f"{path}: cannot be read: {error.strerror}; give the path of a data file") from error
    content = " ".join(digests)
    return hashlib.sha256(f"{content} {layout}".encode()).hexdigest()


@contextlib.contextmanager
def _index_errors(settings: ElasticsearchSettings, name: str) -> Iterator[None]:
    try:
        yield
    except settings.failures() as error:
        hidden = settings.hidden()
        raise RetrieverIndexError(
            f"the index {name} at {settings.url} was not finished: {describe(error, *hidden)}. "
            "Run the same command again; it goes on where it stopped."
        ) from shown_cause(error, *hidden)

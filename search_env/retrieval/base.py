"""What every retriever is: a batch of queries in, ranked documents out.

A retriever says what it searches (`fingerprint`), so that a score can name the
corpus and the engine behind it. It raises `RetrieverUnavailable` when it fails for
good; it never returns an error as text, and never a document that did not match.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

from search_env.errors import DatasetError
from search_env.types import Document, Hit

__all__ = [
    "TIE_BREAKER",
    "TITLE_BOOST",
    "InMemoryRetriever",
    "Retriever",
    "digest_documents",
    "require_documents",
]

TITLE_BOOST = 1.5
"""What the title's BM25 score is multiplied by in every engine that searches title and text as two fields."""

TIE_BREAKER = 0.3
"""What the lesser of the two fields' scores is multiplied by before it is added to the greater."""


@runtime_checkable
class Retriever(Protocol):
    """Searches one corpus."""

    @property
    def fingerprint(self) -> str:
        """Name and content hash of engine, settings and corpus: ``bm25-<hash>``."""
        ...

    def search(self, queries: Sequence[str], top_k: int) -> list[tuple[Hit, ...]]:
        """Run a batch of queries.

        Args:
            queries: Any text at all; a query that matches nothing is no error.
            top_k: The most documents to return for each query, at least 1.

        Returns:
            One tuple for each query, best document first, ties in order of document id.

        Raises:
            RetrieverUnavailable: If the retriever failed for good.
        """
        ...


def require_documents(documents: Sequence[Document]) -> None:
    """Refuse an empty corpus, for an engine that searches the documents it is given.

    Raises:
        DatasetError: If there are none.
    """
    if not documents:
        raise DatasetError(
            "there are no documents to search. Put corpus.jsonl beside the questions (on the command line --corpus "
            "FILE, where a verb has it), or name an engine with documents of its own: {name: bm25, index: FOLDER}, "
            "{name: elasticsearch, url: …, index: …}, {name: http, url: …}."
        )


def digest_documents(described: str, documents: Iterable[Document]) -> str:
    """Hash of what an index holds, 16 hex digits.

    Args:
        described: Everything else that shapes the index: settings, analyzer, encoder.
        documents: The corpus, in an order of the caller's; it counts.
    """
    digest = hashlib.sha256(described.encode())
    for document in documents:
        for part in (document.id, document.title, document.text):
            data = part.encode(errors="surrogatepass")
            # With its length, so that no two lists of texts run together to the same bytes.
            digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:16]


class InMemoryRetriever:
    """A retriever for tests and first steps: scores a document by the number of query words it holds.

    Example:
        >>> retriever = InMemoryRetriever([Document(id="1", title="Oslo", text="Capital of Norway.")])
        >>> [hit.document.title for hit in retriever.search(["norway capital"], top_k=3)[0]]
        ['Oslo']
    """

    def __init__(self, documents: Iterable[Document]) -> None:
        in_order = sorted(documents, key=lambda document: document.id)
        self._documents = [(document, _words(f"{document.title} {document.text}")) for document in in_order]
        self.fingerprint = f"in-memory-{digest_documents('', in_order)}"

    def search(self, queries: Sequence[str], top_k: int) -> list[tuple[Hit, ...]]:
        """Run a batch of queries; see `Retriever.search`."""
        return [self._search_one(_words(query), top_k) for query in queries]

    def _search_one(self, query: frozenset[str], top_k: int) -> tuple[Hit, ...]:
        hits = [Hit(document=document, score=float(len(query & words))) for document, words in self._documents]
        matching = [hit for hit in hits if hit.score > 0]
        return tuple(sorted(matching, key=lambda hit: (-hit.score, hit.document.id))[:top_k])


def _words(text: str) -> frozenset[str]:
    return frozenset("".join(c if c.isalnum() else " " for c in text.lower()).split())

"""Several retrievers as one, by reciprocal rank fusion.

A document's score is the sum of ``1 / (k + rank)`` over the retrievers that found it
(Cormack, Clarke and Büttcher, SIGIR 2009, with their k of 60): ranks are comparable where
scores are not. The fusion is done here, so that it is the same whatever the engines are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from search_env.retrieval.base import Retriever
from search_env.types import Document, Hit

__all__ = ["HybridRetriever", "HybridSettings"]

_K = 60


class HybridSettings(BaseModel):
    """Settings of the retriever ``hybrid``."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    of: list[Any] = Field(min_length=2)
    """The retrievers, each a name or a mapping with its settings; all search the same documents."""
    window: int = Field(default=100, ge=1)
    """Documents that each of them returns for a query."""

    def build(self, documents: Sequence[Document]) -> HybridRetriever:
        """Make the retriever; see `RetrieverSettings.build`."""
        from search_env.retrieval import get_retriever

        return HybridRetriever([get_retriever(spec, documents) for spec in self.of], window=self.window)


class HybridRetriever:
    """Searches with several retrievers and fuses their ranks.

    Args:
        retrievers: At least one. The same document must have the same id in all.
        window: Documents that each of them returns for a query; more if more are asked for.

    Example:
        >>> from search_env.retrieval.base import InMemoryRetriever
        >>> oslo = InMemoryRetriever([Document(id="1", title="Oslo", text="Capital of Norway.")])
        >>> HybridRetriever([oslo, oslo]).search(["norway"], top_k=1)[0][0].score == 2 / 61
        True
    """

    def __init__(self, retrievers: Sequence[Retriever], *, window: int = 100) -> None:
        self._retrievers = tuple(retrievers)
        self._window = window

    @cached_property
    def fingerprint(self) -> str:
        """``hybrid-`` and a hash of the retrievers' fingerprints and the settings."""
        parts = [*(retriever.fingerprint for retriever in self._retrievers), f"window={self._window} k={_K}"]
        return f"hybrid-{hashlib.sha256(' '.join(parts).encode()).hexdigest()[:16]}"

    def search(self, queries: Sequence[str], top_k: int) -> list[tuple[Hit, ...]]:
        """Run a batch of queries, one call to each retriever; see `Retriever.search`.

        Raises:
            RetrieverUnavailable: If one of the retrievers failed: half a fusion would be another retriever.
        """
        found = [retriever.search(queries, max(top_k, self._window)) for retriever in self._retrievers]
        return [_fuse(rankings, top_k) for rankings in zip(*found, strict=True)]


def _fuse(rankings: Sequence[tuple[Hit, ...]], top_k: int) -> tuple[Hit, ...]:
    documents: dict[str, Document] = {}
    scores: dict[str, float] = {}
    for hits in rankings:
        for rank, hit in enumerate(hits, start=1):
            documents.setdefault(hit.document.id, hit.document)
            scores[hit.document.id] = scores.get(hit.document.id, 0.0) + 1 / (_K + rank)
    best = sorted(scores, key=lambda id_: (-scores[id_], id_))[:top_k]
    return tuple(Hit(document=documents[id_], score=scores[id_]) for id_ in best)

"""Retrievers: engines that search a corpus, found by name and imported when they are used."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from search_env.errors import ConfigError, unknown_name
from search_env.retrieval.base import InMemoryRetriever, Retriever
from search_env.types import Document

__all__ = ["RETRIEVERS", "InMemoryRetriever", "Retriever", "get_retriever"]


def _bm25(documents: Sequence[Document]) -> Retriever:
    from search_env.retrieval.bm25 import BM25Retriever

    return BM25Retriever.build(documents)


RETRIEVERS: dict[str, Callable[[Sequence[Document]], Retriever]] = {"bm25": _bm25}
"""Every retriever by its name: a corpus in, what searches it out."""


def get_retriever(spec: str | Retriever, documents: Sequence[Document]) -> Retriever:
    """Find a retriever by name and let it search a corpus.

    Args:
        spec: One of `RETRIEVERS`, or a ready retriever, which is returned as it is.
        documents: The corpus; a ready retriever has its own.

    Raises:
        ConfigError: If there is no retriever of that name.
        DatasetError: If the corpus is empty or uses an id twice.
        RetrieverIndexError: If an index cannot be built.
    """
    if not isinstance(spec, str):
        return spec
    if spec not in RETRIEVERS:
        raise ConfigError(unknown_name("retriever", spec, RETRIEVERS))
    return RETRIEVERS[spec](documents)

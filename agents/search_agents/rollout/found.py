"""What a batch of searches brought each of those who asked: documents or none, and what it has spent."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

from search_env.errors import RetrieverUnavailable
from search_env.retrieval.base import Retriever
from search_env.retrieval.metering import Spent, metered, shares
from search_env.types import Hit

__all__ = ["Found", "search_for"]

_LOG = logging.getLogger(__name__)


class Found(NamedTuple):
    """What came of a search."""

    hits: tuple[Hit, ...] | None
    """The documents; None if the search failed for good."""
    spent: Spent


def search_for(retriever: Retriever, queries: Sequence[str], top_k: int) -> list[Found]:
    """Run queries as one batch.

    Args:
        retriever: Is asked, unless there are no queries.
        queries: What is searched for.
        top_k: Documents a query.

    Returns:
        What came of each query, in that order.
    """
    if not queries:
        return []
    hits: Sequence[tuple[Hit, ...] | None]
    with metered() as meter:
        try:
            hits = retriever.search(queries, top_k)
        except RetrieverUnavailable as error:
            _LOG.warning("%d episodes are invalid, their search failed for good: %s", len(queries), error)
            hits = [None] * len(queries)
    return [Found(*each) for each in zip(hits, shares(queries, meter), strict=True)]

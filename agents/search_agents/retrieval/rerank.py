"""A second look: the documents that a retriever found, ordered anew by a cross-encoder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict, PositiveInt

from search_env.errors import MissingDependencyError, RetrieverIndexError, RetrieverUnavailable
from search_env.retrieval.base import Retriever
from search_env.types import Document, Hit

__all__ = ["RerankRetriever", "RerankSettings"]


class RerankSettings(BaseModel):
    """Settings of the retriever ``rerank``."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    of: Any
    """The retriever that finds the candidates: a name, or a mapping with its settings."""
    model: str
    """Cross-encoder: a folder or hub id that sentence-transformers can load."""
    window: PositiveInt = 50
    """Candidates of a query."""
    batch_size: PositiveInt = 32
    """Pairs of query and document that the model reads at once."""
    device: str | None = None
    """Device of the model: cpu, cuda, …; by default the best there is."""

    def build(self, documents: Sequence[Document]) -> RerankRetriever:
        """Make the retriever; see `RetrieverSettings.build`."""
        from search_env.retrieval import get_retriever

        return RerankRetriever(get_retriever(self.of, documents), self)


class RerankRetriever:
    """Searches with another retriever and orders what it found by the scores of a cross-encoder.

    Args:
        inner: Finds the candidates.
        settings: Model and window.
    """

    def __init__(self, inner: Retriever, settings: RerankSettings) -> None:
        self._inner, self._settings = inner, settings

    @cached_property
    def fingerprint(self) -> str:
        """``rerank-`` and a hash of model, window and the inner retriever's fingerprint."""
        parts = f"{self._settings.model} {self._settings.window} {self._inner.fingerprint}"
        return f"rerank-{hashlib.sha256(parts.encode()).hexdigest()[:16]}"

    def search(self, queries: Sequence[str], top_k: int) -> list[tuple[Hit, ...]]:
        """Run a batch of queries; see `Retriever.search`.

        Raises:
            RetrieverUnavailable: If the inner retriever or the model failed.
        """
        found = self._inner.search(queries, max(top_k, self._settings.window))
        pairs = [
            (query, f"{hit.document.title} {hit.document.text}")
            for query, hits in zip(queries, found, strict=True)
            for hit in hits
        ]
        if not pairs:
            return found
        try:
            scores = self._model.predict(pairs, batch_size=self._settings.batch_size, show_progress_bar=False)
        except RuntimeError as error:  # torch's
            raise RetrieverUnavailable(f"the reranker {self._settings.model!r} failed: {error}") from error
        remaining = iter(map(float, scores))
        return [_ordered([Hit(document=hit.document, score=next(remaining)) for hit in hits], top_k) for hits in found]

    @cached_property
    def _model(self) -> Any:
        try:
            from sentence_transformers import CrossEncoder
        except ImportError as error:
            raise MissingDependencyError(
                "reranking needs sentence-transformers. Type: pip install 'search-env[dense]'."
            ) from error
        try:
            return CrossEncoder(
                self._settings.model, device=self._settings.device, model_kwargs={"use_safetensors": True}
            )
        except (OSError, ValueError) as error:
            raise RetrieverIndexError(
                f"the cross-encoder {self._settings.model!r} cannot be loaded: {error}. Give a folder or a hub id."
            ) from error

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_model"}

    def __deepcopy__(self, memo: dict[int, Any]) -> RerankRetriever:
        # Gymnasium deep-copies an environment's arguments each time its spec is read.
        return self


def _ordered(hits: list[Hit], top_k: int) -> tuple[Hit, ...]:
    return tuple(sorted(hits, key=lambda hit: (-hit.score, hit.document.id))[:top_k])

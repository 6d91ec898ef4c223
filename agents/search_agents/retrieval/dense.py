"""Dense retrieval: passages and queries as vectors of one encoder, nearest neighbours by FAISS.

Any encoder of ``sentence-transformers`` serves. What it wants to read before a query and
before a passage is its `Convention`; with the wrong one an encoder loses many points, so
it is named and part of the fingerprint. Vectors are normalised, scores are cosines.

Encoding a corpus is the costly part, so vectors and index are kept in the cache folder
under the hash of everything that shapes them; files are FAISS's own, no pickles.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, PositiveInt

from search_env.errors import ConfigError, MissingDependencyError, RetrieverIndexError, RetrieverUnavailable
from search_env.retrieval.base import digest_documents, require_documents
from search_env.retrieval.bm25 import cache_folder
from search_env.types import Document, Hit

__all__ = ["CONVENTIONS", "Convention", "DenseRetriever", "DenseSettings"]


class Convention(NamedTuple):
    """What an encoder was trained to read in front of its texts."""

    query: str
    passage: str


CONVENTIONS = {
    "e5": Convention("query: ", "passage: "),
    "bge": Convention("Represent this sentence for searching relevant passages: ", ""),
    "plain": Convention("", ""),
}
"""E5's and BGE's (English, v1.5), as their model cards give them, and none."""

_LEAST_FOR_IVF = 10_000  # FAISS wants at least 39 training vectors for each of the 256 centroids of a code.
_NORMALISED = "cosine of normalised vectors, title and text joined by a space"


class DenseSettings(BaseModel):
    """Settings of the retriever ``dense``."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    model: str
    """Encoder: a folder or hub id that sentence-transformers can load."""
    convention: Literal["e5", "bge", "plain"]
    """What is put before queries and passages; see the model's card."""
    index: Literal["flat", "hnsw", "ivfpq"] = "flat"
    """flat: exact. hnsw: approximate, fast, more memory. ivfpq: approximate, a few bytes a passage."""
    batch_size: PositiveInt = 64
    """Texts that the encoder reads at once."""
    max_tokens: PositiveInt = 256
    """A text is cut off after that many tokens, or at the encoder's own limit."""
    device: str | None = None
    """Device of the encoder: cpu, cuda, …; by default the best there is."""

    def build(self, documents: Sequence[Document]) -> DenseRetriever:
        """Make the retriever; see `RetrieverSettings.build`."""
        return DenseRetriever(documents, self)


class DenseRetriever:
    """Searches a corpus by cosine; free to be pickled, copied and forked before its first search.

    Args:
        documents: The corpus, in any order, with unique ids.
        settings: Encoder and index.
        cache_dir: Folder that keeps indexes; None for `cache_folder`.

    Raises:
        ConfigError: If there are too few documents for the index.
        DatasetError: If there are none.
        MissingDependencyError: If FAISS or sentence-transformers is not installed.
        RetrieverIndexError: If the encoder cannot be loaded, or the index cannot be written or read.
    """

    def __init__(self, documents: Iterable[Document], settings: DenseSettings, cache_dir: Path | None = None) -> None:
        self._documents = tuple(sorted(documents, key=lambda document: document.id))
        require_documents(self._documents)
        self._settings = settings
        self._cache_dir = cache_folder() if cache_dir is None else cache_dir
        if settings.index == "ivfpq" and len(self._documents) < _LEAST_FOR_IVF:
            raise ConfigError(
                f"an ivfpq index needs at least {_LEAST_FOR_IVF:,} documents, got {len(self._documents):,}. Use flat."
            )
        self._index: Any = self._open()

    @cached_property
    def fingerprint(self) -> str:
        """``dense-`` and a hash of encoder, convention, index and documents; their order does not count."""
        shaping = self._settings.model_dump(include={"convention", "index", "max_tokens"})
        described = f"{_NORMALISED} {_identity(self._settings.model)} {sorted(shaping.items())}"
        return f"dense-{digest_documents(described, self._documents)}"

    def search(self, queries: Sequence[str], top_k: int) -> list[tuple[Hit, ...]]:
        """Run a batch of queries; see `Retriever.search`.

        Raises:
            ConfigError: If `top_k` is below 1.
            RetrieverUnavailable: If the encoder failed.
        """
        if top_k < 1:
            raise ConfigError(f"top_k is the number of documents to return and must be at least 1, got {top_k}")
        if not queries:
            return []
        if self._index is None:
            self._index = self._open()
        distinct = list(dict.fromkeys(queries))
        try:
            vectors = self._encode([CONVENTIONS[self._settings.convention].query + query for query in distinct])
            scores, rows = self._index.search(vectors, min(top_k, len(self._documents)))
        except RuntimeError as error:  # torch's and FAISS's
            raise RetrieverUnavailable(f"the dense retriever {self.fingerprint} failed: {error}") from error
        found = {
            # FAISS gives -1 where an approximate index found no more; equal scores come in any order.
            query: tuple(
                Hit(document=self._documents[row], score=-score)
                for score, row in sorted((-float(s), int(r)) for s, r in zip(*pair, strict=True) if r >= 0)
            )
            for query, pair in zip(distinct, zip(scores, rows, strict=True), strict=True)
        }
        return [found[query] for query in queries]

    def _open(self) -> Any:
        faiss = _faiss()
        path = self._cache_dir / f"{self.fingerprint}.faiss"
        try:
            if not path.exists():
                self._cache_dir.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryDirectory(dir=self._cache_dir) as scratch:
                    faiss.write_index(self._make_index(), f"{scratch}/index")
                    os.replace(f"{scratch}/index", path)
            index = faiss.read_index(str(path))
        except RetrieverIndexError:  # the encoder's own
            raise
        except (OSError, RuntimeError) as error:
            raise RetrieverIndexError(f"the index {path} cannot be written or read: {error}. Remove it.") from error
        if self._settings.index == "ivfpq":
            index.nprobe = 32
        elif self._settings.index == "hnsw":
            index.hnsw.efSearch = 128
        return index

    def _make_index(self) -> Any:
        prefix = CONVENTIONS[self._settings.convention].passage
        vectors = self._encode([f"{prefix}{document.title} {document.text}" for document in self._documents])
        cells = round(4 * len(vectors) ** 0.5)  # between FAISS's advice of 4 and 16 roots of the number of vectors
        kinds = {"flat": "Flat", "hnsw": "HNSW32", "ivfpq": f"IVF{cells},PQ{vectors.shape[1] // 8}"}
        faiss = _faiss()
        index = faiss.index_factory(vectors.shape[1], kinds[self._settings.index], faiss.METRIC_INNER_PRODUCT)
        index.train(vectors)
        index.add(vectors)
        return index

    def _encode(self, texts: list[str]) -> Any:
        """Vectors of texts, float32 [texts, dimensions]."""
        return self._encoder.encode(
            texts,
            batch_size=self._settings.batch_size,
            normalize_embeddings=True,
            show_progress_bar=False,
            convert_to_numpy=True,
        )

    @cached_property
    def _encoder(self) -> Any:
        try:
            from sentence_transformers import SentenceTransformer
        except ImportError as error:
            raise _not_installed("sentence-transformers") from error
        try:
            encoder = SentenceTransformer(
                self._settings.model, device=self._settings.device, model_kwargs={"use_safetensors": True}
            )
        except (OSError, ValueError) as error:
            raise RetrieverIndexError(
                f"the encoder {self._settings.model!r} cannot be loaded: {error}. Give a folder or a hub id."
            ) from error
        encoder.max_seq_length = min(self._settings.max_tokens, encoder.max_seq_length or self._settings.max_tokens)
        return encoder

    def __getstate__(self) -> dict[str, Any]:
        # Encoder and index belong to their process; another one loads them when it first searches.
        return {**{key: value for key, value in self.__dict__.items() if key != "_encoder"}, "_index": None}

    def __deepcopy__(self, memo: dict[int, Any]) -> DenseRetriever:
        # Gymnasium deep-copies an environment's arguments each time its spec is read.
        return self


def _identity(model: str) -> str:
    """The hash of a local encoder's weights; a hub id stands for itself."""
    weights = Path(model) / "model.safetensors"
    if not weights.is_file():
        return model
    with weights.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise _not_installed("faiss-cpu") from error
    return faiss


def _not_installed(package: str) -> MissingDependencyError:
    return MissingDependencyError(f"dense retrieval needs {package}. Type: pip install 'search-env[dense]'.")

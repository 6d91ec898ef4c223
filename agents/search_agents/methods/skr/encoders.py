"""Questions as vectors, so that near ones can be found."""

from __future__ import annotations

import itertools
import math
import re
import zlib
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from search_env.errors import ConfigError, MissingDependencyError

__all__ = ["HASHED_WORDS", "Encoder", "make_encoder"]

HASHED_WORDS = "hashed-words"
"""Name of the encoder that needs no model: words and pairs of words, hashed."""

Encoder = Callable[[Sequence[str]], npt.NDArray[np.float32]]
"""Unit vectors of texts, [texts, dimensions]."""

_DIMENSIONS = 1024


def make_encoder(name: str) -> Encoder:
    """Make an encoder.

    Args:
        name: ``hashed-words``, or a folder or hub id that sentence-transformers can load.

    Raises:
        ConfigError: If it cannot be loaded.
        MissingDependencyError: If sentence-transformers is not installed.
    """
    return _hashed_words if name == HASHED_WORDS else _sentence_encoder(name)


def _sentence_encoder(name: str) -> Encoder:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise MissingDependencyError(
            f"the encoder {name!r} needs sentence-transformers. Type: pip install 'search-env[dense]'. "
            f"Without it there is {HASHED_WORDS!r}."
        ) from error
    try:
        model = SentenceTransformer(name, model_kwargs={"use_safetensors": True})
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"the encoder {name!r} cannot be loaded: {error}. Give a folder, a hub id, or {HASHED_WORDS!r}."
        ) from error

    def encode(texts: Sequence[str]) -> npt.NDArray[np.float32]:
        vectors = model.encode(list(texts), normalize_embeddings=True, show_progress_bar=False, convert_to_numpy=True)
        return np.asarray(vectors, dtype=np.float32)

    return encode


def _hashed_words(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    vectors = np.zeros((len(texts), _DIMENSIONS), dtype=np.float32)
    for row, text in enumerate(texts):
        words = re.findall(r"\w+", text.lower())
        for piece, count in Counter([*words, *map(" ".join, itertools.pairwise(words))]).items():
            number = zlib.crc32(piece.encode(errors="replace"))  # the same in every process, unlike `hash`
            sign = 1 if number & 1 << 31 else -1  # so that collisions cancel out on average
            vectors[row, number % _DIMENSIONS] += sign * (1 + math.log(count))
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    np.divide(vectors, lengths, out=vectors, where=lengths > 0)
    return vectors

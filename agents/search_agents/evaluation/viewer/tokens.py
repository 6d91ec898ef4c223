"""The text of single tokens, for shading an episode token by token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from search_agents.evaluation.viewer.sources import Played, models_of
from search_agents.models import find_model
from search_env.errors import ModelError

__all__ = ["Pieces", "find_pieces", "pieces_of"]

Pieces = Callable[[Sequence[int]], tuple[str, ...]]
"""Cuts the text of some ids where its tokens end: one piece for each id."""

_HALF = "\ufffd"
_MOST_BYTES = 4
"""Of a character in UTF-8, so most tokens that one is spread over."""


def find_pieces(run: Path, episodes: Sequence[Played], model: str | None) -> Pieces | None:
    """Find the tokenizer that the episodes were played with.

    Args:
        run: Where the episodes were read.
        episodes: They need one only if they have token ids.
        model: Name or folder of the model, if the user gave one.

    Returns:
        None if there are no token ids, or no tokenizer is found on this machine and none was asked for.

    Raises:
        ModelError: If `model` has no tokenizer that can be read.
    """
    if not any(segment.get("token_ids") for episode in episodes for segment in episode.segments):
        return None
    if model is not None:
        return pieces_of(_load(find_model(model)))
    for name in models_of(run):
        with suppress(ModelError):
            return pieces_of(_load(find_model(name), local_files_only=True))
    return None


def pieces_of(tokenizer: Any) -> Pieces:
    """Decode id by id; of a character that is spread over several tokens the first has all."""
    from search_agents.engines.codec import TextCodec

    codec = TextCodec(tokenizer, ())
    known: dict[tuple[int, ...], str] = {}

    def decode(ids: tuple[int, ...]) -> str:
        if ids not in known:
            known[ids] = codec.decode(ids)
        return known[ids]

    def cut(token_ids: Sequence[int]) -> tuple[str, ...]:
        pieces: list[str] = []
        while len(pieces) < len(token_ids):
            left = token_ids[len(pieces) : len(pieces) + _MOST_BYTES]
            tries = (tuple(left[:length]) for length in range(1, len(left) + 1))
            whole = next((ids for ids in tries if _HALF not in decode(ids)), tuple(left[:1]))
            pieces += [decode(whole), *[""] * (len(whole) - 1)]
        return tuple(pieces)

    return cut


def _load(folder: str, *, local_files_only: bool = False) -> Any:
    try:
        import transformers
    except ImportError:
        raise ModelError("a tokenizer is read with transformers: pip install 'search-env[train]'.") from None
    try:
        return transformers.AutoTokenizer.from_pretrained(
            folder, trust_remote_code=False, local_files_only=local_files_only
        )
    except (OSError, ValueError) as error:
        raise ModelError(f"cannot read the tokenizer of {folder!r}: {error}") from error

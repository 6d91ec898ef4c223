"""Subsequence recovery: what an answer took from compressed documents, written as the documents have it.

Jiang et al. 2024 (LongLLMLingua), section 4.4: compression mutilates names and numbers ("2009" becomes "209"),
and a model repeats what it reads. As it is known which tokens were kept, every word of the compressed text can be
followed to its place in the original.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

__all__ = ["CompressedText", "recover"]

_MOST_CUT_OUT = 10
"""The most tokens that may be missing between two neighbours, as in the authors' code: more is another passage."""


@dataclass(frozen=True)
class CompressedText:
    """A text of which some tokens are kept."""

    pieces: tuple[str, ...]
    """All tokens; joined they are the text."""
    kept: tuple[bool, ...]

    @cached_property
    def text(self) -> str:
        """The tokens that are kept."""
        return "".join(piece for piece, kept in zip(self.pieces, self.kept, strict=True) if kept)

    @cached_property
    def original(self) -> str:
        """All tokens."""
        return "".join(self.pieces)

    @cached_property
    def places(self) -> list[tuple[int, int]]:
        """For each character of `text`, the number of its token and its index in `original`."""
        places, index = [], 0
        for number, (piece, kept) in enumerate(zip(self.pieces, self.kept, strict=True)):
            places += [(number, index + offset) for offset in range(len(piece))] if kept else []
            index += len(piece)
        return places


def recover(response: str, texts: Sequence[CompressedText]) -> str:
    """Put the original words in place of what a response took from compressed texts.

    The longest runs of whole words that stand in a compressed text count. Where a run stands in several places, its
    shortest original does; other words stay as they are.

    Example:
        >>> recover("It was in 209.", [CompressedText(("in", " 20", "0", "9", "."), (True, True, False, True, True))])
        'It was in 2009.'
    """
    words = response.split(" ")
    recovered, start = [], 0
    while start < len(words):
        end, found = start + 1, _shortest_original(words[start], texts)
        while end < len(words) and (longer := _shortest_original(" ".join(words[start : end + 1]), texts)) is not None:
            end, found = end + 1, longer
        recovered.append(words[start] if found is None else found)
        start = end
    return " ".join(recovered)


def _shortest_original(run: str, texts: Sequence[CompressedText]) -> str | None:
    return min((original for text in texts for original in _originals(run, text)), key=len, default=None)


def _originals(run: str, text: CompressedText) -> Iterator[str]:
    if not run.strip():
        return
    for match in re.finditer(rf"(?<!\w){re.escape(run)}(?!\w)", text.text):
        places = text.places[match.start() : match.end()]
        if any(later[0] - earlier[0] > _MOST_CUT_OUT for earlier, later in pairwise(places)):
            continue
        start, end, original = places[0][1], places[-1][1] + 1, text.original
        # A word that lost its beginning or its end is recovered whole.
        while run[0].isalnum() and start > 0 and original[start - 1].isalnum():
            start -= 1
        while run[-1].isalnum() and end < len(original) and original[end].isalnum():
            end += 1
        yield original[start:end]

"""What the methods that compress documents share: how a document is read, cut into sentences, and shown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from search_env.dialects import make_inert
from search_env.types import Document

__all__ = ["document_text", "sentences", "shown"]

# After the end of a sentence and before a capital, a digit or an opening mark; not after an initial, as in "J. Austen",
# nor after a title.
_BORDER = re.compile(
    r"""(?<![A-Z]\.)(?<!\bDr\.)(?<!\bMr\.)(?<!\bMrs\.)(?<!\bMs\.)(?<!\bSt\.)(?<!\bNo\.)(?<!\bvs\.)(?<!\b[cd]\.)"""
    r"""(?:(?<=[.!?])|(?<=[.!?]["'”’)\]]))\s+(?=[^\W_a-z]|["'“‘(\[])"""
)


def document_text(document: Document) -> str:
    """Title and text of a document on one line, inert."""
    return make_inert(f"{document.title}: {document.text}")


def sentences(text: str) -> list[str]:
    """The sentences of a text, by punctuation and capitals; joined with a blank each they are the text.

    Example:
        >>> sentences("Jane A. Austen wrote it. It sold well! Did it?")
        ['Jane A. Austen wrote it.', 'It sold well!', 'Did it?']
    """
    return [part for part in _BORDER.split(text.strip()) if part]


def shown(texts: Sequence[str]) -> str:
    """Compressed documents as a model reads them; those of which nothing is left are not shown.

    What was cut out may let the rest grow together to a tag, so every text is made inert again.
    """
    left = [text for text in map(make_inert, texts) if text]
    return "\n".join(f"Passage {rank}: {text}" for rank, text in enumerate(left, start=1)) or "No passage was found."

"""Sentences as candidates, and which of them are taken."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from search_agents.methods.compression import sentences
from search_env.dialects import make_inert
from search_env.types import Document

__all__ = ["Candidate", "best", "candidates", "passages_of"]


class Candidate(NamedTuple):
    """One sentence of a document."""

    title: str
    sentence: str

    @property
    def text(self) -> str:
        """What the encoder and the labelling model read: a sentence alone may not say of whom it tells."""
        return f"{self.title}: {self.sentence}"


def candidates(documents: Sequence[Document]) -> list[Candidate]:
    """The sentences of documents in their order, inert."""
    return [
        Candidate(make_inert(document.title), sentence)
        for document in documents
        for sentence in sentences(make_inert(document.text))
    ]


def best(scores: Sequence[float], count: int) -> list[int]:
    """Indices of the highest scores, in ascending order; of equal ones the earlier counts."""
    return sorted(sorted(range(len(scores)), key=lambda index: -scores[index])[:count])


def passages_of(chosen: Sequence[Candidate]) -> list[str]:
    """Sentences as passages, those of one title together."""
    passages: dict[str, list[str]] = {}
    for candidate in chosen:
        passages.setdefault(candidate.title, []).append(candidate.sentence)
    return [f"{title}: {' '.join(parts)}" for title, parts in passages.items()]

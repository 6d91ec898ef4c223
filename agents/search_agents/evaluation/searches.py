"""What an episode's searches were worth: gold documents found hop by hop, when, and how often the same was asked.

A document is known by its title. Nothing here needs the model or the retriever.
"""

from __future__ import annotations

from search_env.metrics import normalise, title_key
from search_env.types import Transcript

__all__ = ["first_gold_turn", "found_hops", "repeated_queries"]


def found_hops(transcript: Transcript) -> tuple[bool, ...]:
    """For each gold document of the question, in the set's order, whether some search returned it."""
    found = {title_key(hit.document.title) for turn in transcript.turns for hit in turn.hits}
    return tuple(title_key(title) in found for title in transcript.question.gold_titles)


def first_gold_turn(transcript: Transcript) -> int | None:
    """Number of the turn, from 1, whose search was the first to return a gold document; None if none did."""
    wanted = {title_key(title) for title in transcript.question.gold_titles}
    for number, turn in enumerate(transcript.turns, start=1):
        if any(title_key(hit.document.title) in wanted for hit in turn.hits):
            return number
    return None


def repeated_queries(transcript: Transcript) -> int:
    """How many queries of the episode hold the same words as an earlier one, in any order."""
    asked = [frozenset(normalise(query).split()) for query in transcript.queries]
    return len(asked) - len(set(asked))

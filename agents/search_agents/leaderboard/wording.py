"""What a method's prompts say, told from the episodes: apart from the questions asked and the passages found."""

from __future__ import annotations

from collections.abc import Sequence

from search_agents.leaderboard.row import digest
from search_env.dialects import make_inert
from search_env.types import Transcript

__all__ = ["wording_hash"]


def wording_hash(transcripts: Sequence[Transcript]) -> str | None:
    """Hash of the words of a method that words its own prompts, 16 hex digits; None if no call holds its prompt.

    It covers the prompt of the first call of each episode: the lines that all of them share, each once, with the
    question taken out. Lines that hold a document that was found are left out, and so is whatever differs from
    question to question: summaries, chosen examples. So it stays the same with other questions, another retriever or
    k, and changes with the instruction, the fixed examples or the form of the reply. Later calls, and the layout of
    a passage, are not covered.
    """
    found = [lines for transcript in transcripts if (lines := _first_prompt(transcript)) is not None]
    if not found:
        return None
    shared = set(found[0]).intersection(*found[1:])
    return digest([line for line in dict.fromkeys(found[0]) if line in shared])[:16]


def _first_prompt(transcript: Transcript) -> list[str] | None:
    """The lines of the first prompt, without question and documents."""
    prompt = next((call.prompt for turn in transcript.turns for call in turn.calls if call.prompt), None)
    if prompt is None:
        return None
    question = make_inert(transcript.question.text)
    texts = {make_inert(hit.document.text) for turn in transcript.turns for hit in turn.hits} - {""}
    lines = prompt.replace(question, "{question}").splitlines()
    return [line for line in lines if not any(text in line for text in texts)]

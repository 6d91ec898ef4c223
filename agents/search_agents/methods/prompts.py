"""Wordings that methods share, for models that know no protocol."""

from __future__ import annotations

from collections.abc import Iterable

from search_env.dialects import make_inert
from search_env.types import Document, Hit, Prompt

__all__ = [
    "SHORT_ANSWER_ENDS",
    "begun_prompt",
    "first_line",
    "numbered_passages",
    "passages",
    "short_answer_prompt",
]

_SHORT = "Reply with the answer alone: a name, a date, a number, yes or no. No sentence, no explanation."


SHORT_ANSWER_ENDS = ("\n",)
"""Stop strings of a short answer: its prompt begins the line that it stands on."""


def short_answer_prompt(task: str, question: str, *, chat: bool) -> Prompt:
    """A prompt in plain words whose response begins with the answer.

    Args:
        task: What the model is to do, and what it may read.
        question: The question, already inert.
        chat: Whether the model's chat template separates instruction and question.
    """
    if chat:
        # Without a beginning a small model answers in whole sentences, whatever it is told.
        return Prompt(system=f"{task}\n{_SHORT}", user=f"Question: {question}", prefill="Answer:")
    return Prompt(user=f"{task}\n{_SHORT}\n\nQuestion: {question}\nAnswer:")


def begun_prompt(instruction: str, asked: str, begun: str, *, chat: bool) -> Prompt:
    """A prompt whose response is begun already: the model continues it.

    Args:
        instruction: What to do, with examples.
        asked: The case at hand, in the form that the examples have.
        begun: The beginning of the response.
        chat: Whether the model's chat template separates instruction, case and response.
    """
    if chat:
        return Prompt(system=instruction, user=asked, prefill=begun)
    return Prompt(user=f"{instruction}\n\n{asked}\n", prefill=begun)


def passages(hits: Iterable[Hit]) -> str:
    """Documents as a model reads them, best first, their tags made inert."""
    return numbered_passages(hit.document for hit in hits)


def numbered_passages(documents: Iterable[Document]) -> str:
    """Documents as a model reads them, in the order given, their tags made inert."""
    numbered = enumerate(documents, start=1)
    lines = [f"Passage {rank}, {make_inert(doc.title)}: {make_inert(doc.text)}" for rank, doc in numbered]
    return "\n".join(lines) or "No passage was found."


def first_line(text: str) -> str:
    """The first line that is not blank, without the space around it; empty if there is none."""
    stripped = text.strip()
    return stripped.splitlines()[0].strip() if stripped else ""

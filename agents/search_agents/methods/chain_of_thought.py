"""Chains of thought: how methods ask for one, read it, and bring it to an answer.

A chain is short sentences on one line that end in *So the answer is: …*, the closing words
of IRCoT's and Iter-RetGen's prompts. The model continues a line that is already begun, so
that a base model, a chat model and a chain that was interrupted are all asked alike.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence

from search_agents.methods.prompts import begun_prompt, numbered_passages
from search_agents.methods.steps import Steps, generate
from search_env.dialects import make_inert
from search_env.types import Document, Prompt

__all__ = [
    "ANSWER_MARK",
    "RUN_ON",
    "chain_prompt",
    "conclude",
    "first_sentence",
    "reason",
    "stated_answer",
    "think",
    "without_stop",
]

ANSWER_MARK = "So the answer is:"
"""What stands before the answer in a chain."""

_TASK = f"Think in short sentences, one fact each, and end with: {ANSWER_MARK}"
_WITH_PASSAGES = "Take the facts from the passages."

_EXAMPLES = (
    (
        "Passage 1, The Glass Heron: The Glass Heron is a film that Odalin Verrick directed.\n"
        "Passage 2, Odalin Verrick: Odalin Verrick was a film director, born in Harrowmere in 1921.\n",
        "Where was the director of The Glass Heron born?",
        f"The Glass Heron was directed by Odalin Verrick. Odalin Verrick was born in Harrowmere. "
        f"{ANSWER_MARK} Harrowmere.",
    ),
    (
        "Passage 1, Teln: The Teln is a river, 96 kilometres long.\n"
        "Passage 2, Lesser Aune: The Lesser Aune is a river of 140 kilometres.\n",
        "Is the Teln longer than the Lesser Aune?",
        f"The Teln is 96 kilometres long. The Lesser Aune is 140 kilometres long. {ANSWER_MARK} no.",
    ),
)

_MOST_WORDS = 350  # of a passage in a prompt; IRCoT's configs

RUN_ON = ("\nQuestion:", "\nPassage ")
"""Where a model that has seen examples begins to invent one of its own."""

_STATED = re.compile(r"\banswer is\b[\s:]*([^\s:].*)", re.IGNORECASE)
_SENTENCE_END = re.compile(r"[.!?][\"'”’)\]]*\s+(?=[\"'“‘(\[]*[^\W_a-z])")
_ABBREVIATED = re.compile(
    r"(?:^|[\s(\"'“‘])(?:(?:[A-Z]\.)+|(?:Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|Gen|Col|Capt|Lt|Sgt|Rev|Hon|Gov|Sen|Mt|Ft|No|Vol"
    r"|vs|ca|c|b|d)\.)$"
)


def chain_prompt(question: str, documents: Sequence[Document] | None, *, chat: bool, so_far: str = "") -> Prompt:
    """A prompt that the next words of a chain of thought follow.

    Args:
        question: The question, already inert.
        documents: What may be read, in the order given; None for a closed book.
        chat: See `begun_prompt`.
        so_far: The chain up to here.
    """
    reads = documents is not None
    examples = [
        f"{shown if reads else ''}Question: {example}\nThoughts: {chain}" for shown, example, chain in _EXAMPLES
    ]
    task = f"{_TASK} {_WITH_PASSAGES}" if reads else _TASK
    shown = "" if documents is None else f"{numbered_passages(map(_shortened, documents))}\n"
    begun = f"Thoughts: {make_inert(so_far)}" if so_far else "Thoughts:"
    return begun_prompt("\n\n".join([task, *examples]), f"{shown}Question: {question}", begun, chat=chat)


def think(
    question: str,
    documents: Sequence[Document] | None,
    *,
    chat: bool,
    so_far: str = "",
    purpose: str = "chain of thought",
) -> Steps[str]:
    """Let the model go on with a chain of thought; one call.

    Args:
        question: See `chain_prompt`.
        documents: See `chain_prompt`.
        chat: See `begun_prompt`.
        so_far: See `chain_prompt`.
        purpose: See `search_agents.methods.steps.Generate`.

    Returns:
        What it wrote. A base model stops at the end of the line, any model before a case of its own invention.
    """
    stops = RUN_ON if chat else ("\n",)
    prompt = chain_prompt(question, documents, chat=chat, so_far=so_far)
    text = (yield from generate(purpose, prompt, stop=stops)).text
    return without_stop(text, stops).strip()


def reason(
    question: str, documents: Sequence[Document] | None, *, chat: bool, purpose: str = "chain of thought"
) -> Steps[str]:
    """Answer by a chain of thought; one call, or two where the chain states no answer. See `think` and `conclude`."""
    chain = yield from think(question, documents, chat=chat, purpose=purpose)
    return (yield from conclude(question, documents, chain, chat=chat))


def conclude(question: str, documents: Sequence[Document] | None, chain: str, *, chat: bool) -> Steps[str]:
    """The answer of a chain of thought.

    Args:
        question: See `chain_prompt`.
        documents: What the chain was written from.
        chain: The whole chain.
        chat: See `begun_prompt`.

    Returns:
        What the chain states. Where it states nothing, the closing words are put after it and the model is asked for
        the rest, which is one call more; empty if it still says nothing.
    """
    if (stated := stated_answer(chain)) is not None:
        return stated
    so_far = f"{chain} {ANSWER_MARK}".strip()
    rest = yield from think(question, documents, chat=chat, so_far=so_far, purpose="answer")
    return stated_answer(f"{ANSWER_MARK} {rest}") or ""


def stated_answer(chain: str) -> str | None:
    """What a chain says after its first "answer is", up to the end of that sentence; None if it says nothing there.

    Example:
        >>> stated_answer("She was born in Rome. So the answer is: Rome."), stated_answer("So the answer is:")
        ('Rome', None)
    """
    found = _STATED.search(make_inert(chain))
    return (first_sentence(found[1]).removesuffix(".").strip() or None) if found else None


def without_stop(text: str, stops: Iterable[str]) -> str:
    """A text without the stop string that ended it."""
    return next((text.removesuffix(stop) for stop in stops if text.endswith(stop)), text)


def first_sentence(text: str) -> str:
    """The first sentence of a text, by rule: it ends with its line, or before what begins like a new sentence.

    A full stop after an initial or a common abbreviation ends none. IRCoT's code asks spaCy's English model instead.

    Example:
        >>> first_sentence("It was Dr. J. R. Low. He left."), first_sentence("About 3.5 km. ")
        ('It was Dr. J. R. Low.', 'About 3.5 km.')
    """
    line = next(iter(text.strip().splitlines()), "").strip()
    for end in _SENTENCE_END.finditer(line):
        sentence = line[: end.end()].rstrip()
        if not _ABBREVIATED.search(sentence):
            return sentence
    return line


def _shortened(document: Document) -> Document:
    words = document.text.split()
    if len(words) <= _MOST_WORDS:
        return document
    return dataclasses.replace(document, text=" ".join(words[:_MOST_WORDS]))

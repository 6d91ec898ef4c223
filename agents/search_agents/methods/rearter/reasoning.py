"""The reasoning of ReARTeR: paths of steps, each a follow-up question that is answered with or without a search.

A step is written in the words of the prompt, so that what the model has written and what
it reads next look alike::

    Follow up: Who wrote the opera Velmora?
    Search: Yes.
    Retrieved documents:
    Passage 1, Velmora: Velmora is an opera by Tasko Brinde.
    Intermediate answer: Tasko Brinde

and the last one may be ``So the final answer is: Quellia``.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from search_agents.methods.prompts import first_line, passages, short_answer_prompt
from search_agents.methods.steps import Steps, generate, retrieve
from search_env.dialects import make_inert
from search_env.types import Hit, Prompt, Question

__all__ = [
    "Path",
    "ReasoningStep",
    "Wording",
    "answer_follow_up",
    "final_answer",
    "look_ahead",
    "next_step",
    "sum_up",
    "written",
]

_FOLLOW_UP, _SEARCH, _FINAL = "Follow up:", "Search:", "So the final answer is:"
_DOCUMENTS, _ANSWER = "Retrieved documents:", "Intermediate answer:"

_TASK = """\
Answer the question step by step. A step is a follow up question, whether to search for it, and its answer. When the \
steps suffice, give the final answer in a few words.

Question: In which century was the composer of the opera Velmora born?
Follow up: Who composed the opera Velmora?
Search: Yes.
Retrieved documents:
Passage 1, Velmora: Velmora is an opera by Tasko Brinde.
Intermediate answer: Tasko Brinde
Follow up: When was Tasko Brinde born?
Search: Yes.
Retrieved documents:
Passage 1, Tasko Brinde: Tasko Brinde (1862-1931) was a composer.
Intermediate answer: 1862
Follow up: In which century is 1862?
Search: No.
Intermediate answer: the 19th century
So the final answer is: the 19th century"""

# A small model that is told of the final answer at once gives one at once.
_FIRST = f"Write the first step. Begin with '{_FOLLOW_UP}'"
_NEXT = f"Write the next step. Begin with '{_FOLLOW_UP}' or, if the steps suffice, with '{_FINAL}'"

# Where a step must pause: for the documents, or before the next question.
_STEP_ENDS = (_DOCUMENTS, _ANSWER, "Question:")
_STEP_TOKENS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ReasoningStep:
    """One step; all its texts are inert and on one line."""

    query: str = ""
    """The follow-up question; empty in the step that gives the final answer."""
    searched: bool = False
    hits: tuple[Hit, ...] = ()
    answer: str
    """Its intermediate answer, or the final one."""

    @property
    def final(self) -> bool:
        """Whether it ends the path."""
        return not self.query

    @property
    def text(self) -> str:
        """The step as models read it."""
        return f"{_FINAL} {self.answer}" if self.final else f"{self.opening}{_ANSWER} {self.answer}"

    @property
    def opening(self) -> str:
        """The step up to its intermediate answer."""
        documents = f"{_DOCUMENTS}\n{passages(self.hits)}\n" if self.searched else ""
        return f"{_FOLLOW_UP} {self.query}\n{_SEARCH} {'Yes' if self.searched else 'No'}.\n{documents}"


Path = tuple[ReasoningStep, ...]
"""Steps, the first one first."""


def written(path: Sequence[ReasoningStep]) -> str:
    """A path as models read it, one line break after each step."""
    return "".join(f"{step.text}\n" for step in path)


class Wording(NamedTuple):
    """What all prompts about one question share."""

    question: Question
    chat: bool
    """Whether prompts go through a chat template."""
    top_k: int | None = None
    """Documents of one search; None takes the setting's."""

    def prompt(self, sofar: str, opened: str = "") -> Prompt:
        """The prompt after which the next words of a path come.

        Args:
            sofar: What has been written of the path.
            opened: The words the model is made to go on from.
        """
        asked = f"Question: {make_inert(self.question.text)}"
        if self.chat:
            return Prompt(system=_TASK, user=f"{asked}\n\n{_NEXT if sofar else _FIRST}", prefill=sofar + opened)
        return Prompt(system=_TASK, user=asked, prefill=f"\n{sofar}{opened}")


def next_step(wording: Wording, path: Path, *, temperature: float, last: bool) -> Steps[ReasoningStep | None]:
    """Write the next step of a path.

    A reply that is neither a follow-up question nor a final answer is dropped and the model asked once more, its words
    opened for it: those of a follow-up question, or of the final answer if it is the `last` step. A follow-up question
    that does not say whether to search is searched.

    Returns:
        The step; None if the second reply cannot be read either.
    """
    sofar = written(path)
    reply = yield from _write("step", wording.prompt(sofar), temperature)
    asked = _read_step(reply)
    if asked is None:
        opened = _FINAL if last else _FOLLOW_UP
        reply = yield from _write("step, opened", wording.prompt(sofar, opened), temperature)
        asked = _read_step(opened + reply)
    if asked is None or asked.final:
        return asked
    return (yield from answer_follow_up(wording, path, asked.query, search=asked.searched, temperature=temperature))


def answer_follow_up(
    wording: Wording, path: Path, query: str, *, search: bool, temperature: float
) -> Steps[ReasoningStep]:
    """Answer a follow-up question, after a search for it or from what the model knows and the path holds."""
    hits = (yield from retrieve(query, wording.top_k)) if search else ()
    step = ReasoningStep(query=query, searched=search, hits=hits, answer="")
    prompt = wording.prompt(written(path) + step.opening, _ANSWER)
    reply = yield from generate(
        "intermediate answer", prompt, stop=("\n",), max_tokens=_STEP_TOKENS, temperature=temperature
    )
    return dataclasses.replace(step, answer=_line_after(_ANSWER, _ANSWER + reply.text))


def final_answer(wording: Wording, path: Path, *, temperature: float) -> Steps[ReasoningStep | None]:
    """Let the final answer follow now; None if it is empty."""
    reply = yield from _write("final answer", wording.prompt(written(path), _FINAL), temperature)
    step = _read_step(_FINAL + reply)
    return step if step is not None and step.final else None


def look_ahead(wording: Wording, path: Path, *, steps: int, temperature: float, last: bool) -> Steps[Path]:
    """Sample a chain of steps that goes on from a path, until a final answer or a step that cannot be read.

    Args:
        wording: What the prompts share.
        path: The path.
        steps: The most steps of the chain.
        temperature: Of all that is sampled for it.
        last: Whether the path may take one step only.
    """
    chain: Path = ()
    while len(chain) < steps and not (chain and chain[-1].final):
        step = yield from next_step(
            wording, (*path, *chain), temperature=temperature, last=last and len(chain) == steps - 1
        )
        if step is None:
            break
        chain = (*chain, step)
    return chain


def sum_up(wording: Wording, path: Path, *, temperature: float | None = None) -> Steps[str]:
    """Put a path into a short answer.

    Args:
        wording: What the prompts share.
        path: The path; it may be empty.
        temperature: None takes the setting's.
    """
    task = f"Answer the question. This is what was found out:\n\n{written(path) or 'Nothing.'}"
    prompt = short_answer_prompt(task, make_inert(wording.question.text), chat=wording.chat)
    stop = () if wording.chat else ("\n",)
    return first_line((yield from generate("summary", prompt, stop=stop, temperature=temperature)).text)


def _write(purpose: str, prompt: Prompt, temperature: float) -> Steps[str]:
    completion = yield from generate(purpose, prompt, stop=_STEP_ENDS, max_tokens=_STEP_TOKENS, temperature=temperature)
    return completion.text


def _read_step(reply: str) -> ReasoningStep | None:
    """The first thing in a reply that can be read: a follow-up question without its answer, or a final answer."""
    for place, words in sorted((reply.find(words), words) for words in (_FOLLOW_UP, _FINAL) if words in reply):
        line = _line_after(words, reply[place:])
        if words == _FINAL and line:
            return ReasoningStep(answer=line)
        query = line.split(_SEARCH)[0].strip()
        if words == _FOLLOW_UP and query:
            verdict = re.search(rf"{_SEARCH}\W*(yes|no)\b", reply[place:], re.IGNORECASE)
            return ReasoningStep(query=query, searched=verdict is None or verdict[1].lower() == "yes", answer="")
    return None


def _line_after(words: str, text: str) -> str:
    """The rest of the line after words, which a model that was given them may have said again."""
    rest = re.sub(rf"^(\s*{re.escape(words)})+", "", text)
    line = first_line(rest)
    for end in (_DOCUMENTS, _ANSWER, _FOLLOW_UP, _FINAL, "Question:"):
        line = line.split(end)[0]
    return make_inert(line)

"""What is done about a step that the reward model finds weak: a critique, an action, a better step.

The explanation model says what is wrong with the step; the model that reasons reads it
and replies with one JSON object that says what to do instead.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from search_agents.methods.rearter.reasoning import (
    Path,
    ReasoningStep,
    Wording,
    answer_follow_up,
    final_answer,
    written,
)
from search_agents.methods.steps import Steps, generate
from search_env.dialects import make_inert
from search_env.types import Prompt

__all__ = ["Action", "ActionKind", "Refinement", "critique_prompt", "read_action", "refined_step"]

_CRITIC = """\
You check one step of the reasoning towards the answer of a question. Say in two or three sentences what is wrong with \
the step and how to do better: does its follow up lead to the answer, is a search needed for it, do the documents say \
what the intermediate answer says?"""

_CORRECTOR = """\
You correct one step of the reasoning towards the answer of a question. Read the critique and choose one action:
new query: ask another follow up, and say whether to search for it
toggle search: keep the follow up, but search for it if that was not done, or answer it without documents if it was
final answer: the steps before suffice to answer the question
Reply with one JSON object:
{"action": "new query", "query": "the other follow up", "search": "yes"}
{"action": "toggle search"}
{"action": "final answer"}"""

_OPENED = '{"action": "'


class ActionKind(StrEnum):
    """What is done about a weak step."""

    NEW_QUERY = "new query"
    TOGGLE_SEARCH = "toggle search"
    FINAL_ANSWER = "final answer"


class Action(NamedTuple):
    """The model's reply to a critique."""

    kind: ActionKind
    query: str = ""
    search: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Refinement:
    """A weak step, and what became of it."""

    prompt: Prompt
    """What the explanation model read."""
    critique: str
    action: Action
    step: ReasoningStep
    """The step that takes the place of the weak one."""
    before: float
    """What the weak step was worth, its chain read to the end."""
    after: float
    """What the new step is worth, by itself."""


def critique_prompt(wording: Wording, path: Path, chain: Path, value: float) -> Prompt:
    """What the explanation model reads: the question, the path, the weak step, what would follow it, its value."""
    user = (
        f"Question: {make_inert(wording.question.text)}\nSteps before:\n{written(path) or 'none'}\n"
        f"The step:\n{chain[0].text}\nWhat would follow:\n{written(chain[1:]) or 'nothing'}\n"
        f"Its score, between 0 and 1: {value:.2f}\nCritique:"
    )
    return Prompt(system=_CRITIC, user=user)


def refined_step(
    wording: Wording, path: Path, weak: ReasoningStep, critique: str, *, temperature: float
) -> Steps[tuple[Action, ReasoningStep]]:
    """Choose an action in the light of a critique, and run it.

    The step stays as it was where an action cannot be run: a new query without a query, a search toggled of a step that
    has no follow-up question, a final answer that is empty.
    """
    user = (
        f"Question: {make_inert(wording.question.text)}\nSteps before:\n{written(path) or 'none'}\n"
        f"The step:\n{weak.text}\nCritique: {critique}\nJSON:"
    )
    prompt = Prompt(system=_CORRECTOR, user=user, prefill=_OPENED)
    reply = yield from generate("action", prompt, stop=("}",), max_tokens=64, temperature=temperature)
    action = read_action(reply.text)
    step: ReasoningStep | None = None
    if action.kind is ActionKind.FINAL_ANSWER:
        step = yield from final_answer(wording, path, temperature=temperature)
    elif action.query:
        step = yield from answer_follow_up(wording, path, action.query, search=action.search, temperature=temperature)
    elif action.kind is ActionKind.TOGGLE_SEARCH and not weak.final:
        search = not weak.searched
        step = yield from answer_follow_up(wording, path, weak.query, search=search, temperature=temperature)
    return action, step or weak


def read_action(reply: str) -> Action:
    """Read a reply, with or without the opening that it was given.

    Any reply that is no JSON object with one of the three actions counts as a final answer, as in the authors' code. A
    new query is searched unless the reply says no.

    Example:
        >>> read_action('new query", "query": "Who sang it?", "search": "no"}')
        Action(kind=<ActionKind.NEW_QUERY: 'new query'>, query='Who sang it?', search=False)
    """
    for text in (reply, _OPENED + reply):
        found = re.search(r"\{[^{}]*\}", text)
        try:
            told = json.loads(found[0]) if found else {}
            kind = ActionKind(str(told.get("action")).strip().lower())
        except ValueError:
            continue
        if kind is not ActionKind.NEW_QUERY:
            return Action(kind)
        search = str(told.get("search", "yes")).strip().lower() not in ("no", "false")
        query = told.get("query")
        return Action(kind, make_inert(query) if isinstance(query, str) else "", search)
    return Action(ActionKind.FINAL_ANSWER)

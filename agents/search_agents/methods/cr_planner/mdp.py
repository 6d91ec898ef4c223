"""The decision process of CR-Planner: its states, its sub-goals, and what each critic reads.

A state is what has been observed: the question at the root, then rationales, queries
and documents. In a state a sub-goal is chosen (a decision of the sub-goal critic) and
carried out in several ways, of which one is kept (a decision of that outcome's critic).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import NamedTuple

__all__ = ["OUTCOMES", "SENTENCES", "Critic", "Observed", "State", "SubGoal", "critic_input", "judged_text"]


class SubGoal(StrEnum):
    """What to do next."""

    REASON = "reason"
    GENERATE_QUERY = "generate-query"
    RETRIEVE = "retrieve"


class Critic(StrEnum):
    """The four critics, by what they judge; the last three are kinds of observations too."""

    SUB_GOAL = "sub-goal"
    RATIONALE = "rationale"
    QUERY = "query"
    DOCUMENT = "document"


SENTENCES = {
    SubGoal.REASON: "Think the question through by one more step.",
    SubGoal.GENERATE_QUERY: "Word a query for what has to be looked up.",
    SubGoal.RETRIEVE: "Look up the query and read a document.",
}
"""The fixed sentence by which the sub-goal critic knows each sub-goal."""

OUTCOMES = {
    SubGoal.REASON: Critic.RATIONALE,
    SubGoal.GENERATE_QUERY: Critic.QUERY,
    SubGoal.RETRIEVE: Critic.DOCUMENT,
}
"""What each sub-goal leads to, and so whose critic chooses."""

_LABELS = {
    Critic.SUB_GOAL: "Next",
    Critic.RATIONALE: "Thought",
    Critic.QUERY: "Query",
    Critic.DOCUMENT: "Document",
}
_ANSWER = re.compile(r"\banswer is\b(?!\s+(?:not|unknown|unclear)\b)\s*:?\s*(.*?)\s*\.?$", re.IGNORECASE)


class Observed(NamedTuple):
    """One observation after the question."""

    kind: Critic
    text: str

    def __str__(self) -> str:
        return f"{_LABELS[self.kind]}: {self.text}"


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What has been observed so far."""

    question: str
    """The observation at the root, on one line, inert."""
    observed: tuple[Observed, ...] = ()
    """In order; texts on one line, inert."""
    open_query: str | None = None
    """The last query, until it has been looked up."""
    searches: int = 0

    def possible(self, max_searches: int) -> tuple[SubGoal, ...]:
        """The sub-goals that can be carried out: nothing is looked up without a query, or beyond the budget.

        The one that needs most comes first, since the first counts among equals: a search tries it soonest.
        """
        if self.searches >= max_searches:
            return (SubGoal.REASON,)
        if self.open_query is None:
            return (SubGoal.GENERATE_QUERY, SubGoal.REASON)
        return (SubGoal.RETRIEVE, SubGoal.GENERATE_QUERY, SubGoal.REASON)

    def after(self, sub_goal: SubGoal, outcome: str | None) -> State:
        """The next state.

        Args:
            sub_goal: What was carried out.
            outcome: What is kept of it; None if nothing came of it.
        """
        kind = OUTCOMES[sub_goal]
        observed = self.observed if outcome is None else (*self.observed, Observed(kind, outcome))
        if sub_goal is SubGoal.RETRIEVE:
            return replace(self, observed=observed, open_query=None, searches=self.searches + 1)
        if sub_goal is SubGoal.GENERATE_QUERY and outcome is not None:
            return replace(self, observed=observed, open_query=outcome)
        return replace(self, observed=observed)

    @property
    def answer(self) -> str:
        """The answer that the last observation holds, if it is a rationale that says what the answer is, else empty."""
        last = self.observed[-1] if self.observed else None
        said = _ANSWER.search(last.text) if last is not None and last.kind is Critic.RATIONALE else None
        return said[1] if said else ""

    def __str__(self) -> str:
        """All observations, one a line."""
        return "\n".join([f"Question: {self.question}", *map(str, self.observed)])


def critic_input(critic: Critic, state: State) -> str:
    """What a critic reads of a state, one observation a line.

    The sub-goal critic reads all observations, the rationale critic all rationales, the query critic the last
    rationale, the document critic the last rationale and the query (the paper's table of inputs). The question, which
    is the observation at the root, counts as the rationale before the first.
    """
    if critic is Critic.SUB_GOAL:
        return str(state)
    rationales = [str(one) for one in state.observed if one.kind is Critic.RATIONALE]
    rationales = [f"Question: {state.question}", *rationales]
    if critic is Critic.RATIONALE:
        return "\n".join(rationales)
    if critic is Critic.QUERY or state.open_query is None:
        return rationales[-1]
    return f"{rationales[-1]}\n{Observed(Critic.QUERY, state.open_query)}"


def judged_text(critic: Critic, read: str, candidate: str) -> str:
    """What a critic scores: what it reads of the state, then the candidate.

    Args:
        critic: Which one.
        read: See `critic_input`.
        candidate: The sentence of a sub-goal, a rationale, a query or a document.
    """
    return f"{read}\n{_LABELS[critic]}: {candidate}"

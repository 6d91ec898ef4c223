"""What planning and the search for training data share: how a sub-goal is carried out, and how it all ends."""

from __future__ import annotations

import re

from pydantic import NonNegativeFloat, PositiveInt

from search_agents.config.sections import Section
from search_agents.methods.cr_planner.mdp import State, SubGoal
from search_agents.methods.prompts import first_line
from search_agents.methods.steps import Steps, generate_all, retrieve
from search_agents.methods.stepwise import StepwiseMethod
from search_env.dialects import make_inert
from search_env.types import Prompt, Question

__all__ = ["PlanOptions", "Planner"]

_TASKS = {
    SubGoal.REASON: (
        "You solve a question in short steps. Read the notes and write the next thought only, one sentence. When the "
        "notes are enough to answer, write instead: The answer is: and the answer."
    ),
    SubGoal.GENERATE_QUERY: (
        "You solve a question with a search engine. Read the notes and write one short search query for a fact that is "
        "still missing. Write the query only, a few words."
    ),
}
_CUES = {SubGoal.REASON: "Thought:", SubGoal.GENERATE_QUERY: "Query:"}
_EXAMPLE = """\
Question: On which river lies the town where the painter of Grey Morning was born?
Thought: The painter of Grey Morning has to be found first.
Query: painter of Grey Morning
Document: Grey Morning: Grey Morning is a painting by Ilsa Vendt.
Thought: Ilsa Vendt painted it, so her place of birth is next.
Query: Ilsa Vendt place of birth
Document: Ilsa Vendt: Ilsa Vendt, born in Morrowby on the river Oswen, was a painter.
Thought: The answer is: Oswen

"""
_CONCLUDE = "Answer the question from the notes."
_LABEL = re.compile(r"^(?:[-*•]\s*)?(?:(?:next )?(?:thought|search query|query|step)(?: \d+)?\s*:\s*)?", re.IGNORECASE)


class PlanOptions(Section):
    """How sub-goals are carried out."""

    samples: PositiveInt = 3
    """Rationales or queries among which a critic chooses: the paper's M."""
    temperature: NonNegativeFloat = 0.7
    """Of those samples (paper: 0.7)."""
    top_k: PositiveInt | None = None
    """Documents among which a critic chooses one (paper: 3); by default the setting's."""
    max_steps: PositiveInt = 10
    """Sub-goals until a conclusion is forced: the paper's T, whose value is ours."""
    max_tokens: PositiveInt = 48
    """The most tokens of a rationale or a query (ours: one sentence)."""


class Planner(StepwiseMethod):
    """The parts of an episode of CR-Planner; `options` are a `PlanOptions`."""

    options: PlanOptions

    @property
    def max_searches(self) -> int:
        """Searches of one path from the root."""
        return self.setting.env.rules.budget.max_searches

    def execute(self, state: State, sub_goal: SubGoal) -> Steps[list[str]]:
        """Carry out a sub-goal in as many ways as the options say.

        Returns:
            The distinct outcomes in the order they came, documents best first; samples without text are left out.
        """
        if sub_goal is SubGoal.RETRIEVE:
            hits = yield from retrieve(state.open_query or "", self.options.top_k)
            found = [f"{make_inert(hit.document.title)}: {make_inert(hit.document.text)}" for hit in hits]
        else:
            completions = yield from generate_all(
                sub_goal.value,
                [self._prompt(state, sub_goal)] * self.options.samples,
                stop=() if self.setting.chat else ("\n",),
                max_tokens=self.options.max_tokens,
                temperature=self.options.temperature,
            )
            found = [_clean(completion.text, sub_goal) for completion in completions]
        return [outcome for outcome in dict.fromkeys(found) if outcome]

    def conclude(self, question: Question, state: State) -> Steps[str]:
        """Answer from all observations."""
        notes = "\n".join(map(str, state.observed)) or "none"
        return (yield from self.short_answer(question, f"{_CONCLUDE}\n\nNotes:\n{notes}\n", purpose="conclusion"))

    def _prompt(self, state: State, sub_goal: SubGoal) -> Prompt:
        if self.setting.chat:
            return Prompt(system=_TASKS[sub_goal], user=f"{state}\n{_CUES[sub_goal]}")
        return Prompt(user=f"{_TASKS[sub_goal]}\n\n{_EXAMPLE}{state}\n{_CUES[sub_goal]}")


def _clean(text: str, sub_goal: SubGoal) -> str:
    """One line of a model's text without the label, and for queries the quotes, that models put around it."""
    line = _LABEL.sub("", make_inert(first_line(text)))
    return line.strip(" \"'“”") if sub_goal is SubGoal.GENERATE_QUERY else line

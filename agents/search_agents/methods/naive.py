"""Naive generation: the closed book. What the model answers from its weights alone."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from search_agents.methods.base import batches
from search_agents.methods.in_protocol import answer_at_once
from search_agents.methods.steps import Steps
from search_agents.methods.stepwise import StepwiseMethod
from search_env.types import Question, Transcript

__all__ = ["NaiveGeneration"]


class NaiveGeneration(StepwiseMethod):
    """Answers at once; the retriever is never called.

    A model that was trained on the protocol is prompted in it, with its reasoning closed and the answer opened.
    """

    name = "naive-generation"

    def answer(self, question: Question) -> Steps[str]:
        """One call of the model."""
        return (yield from self.short_answer(question, "Answer the question from what you know."))

    def run(self, questions: Sequence[Question], *, skip: Collection[int] = ()) -> Iterator[Transcript]:
        """Answer questions; see `Method.run`."""
        if not self.setting.knows_protocol:
            yield from super().run(questions, skip=skip)
            return
        for numbers, batch in batches(questions, self.setting.env.num_envs, skip):
            yield from answer_at_once(self.setting, numbers, batch)

"""Standard RAG: one retrieval with the question as the query, then the answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Sequence

from search_agents.methods.base import batches
from search_agents.methods.in_protocol import answer_after_one_search
from search_agents.methods.prompts import passages
from search_agents.methods.steps import Steps, retrieve
from search_agents.methods.stepwise import StepwiseMethod
from search_agents.rollout.found import search_for
from search_env.types import FormatVerdict, Question, StopReason, Transcript

__all__ = ["READ_AND_ANSWER", "StandardRAG"]

READ_AND_ANSWER = "Answer the question with the help of the passages."
"""What a reader is told before the passages."""


class StandardRAG(StepwiseMethod):
    """Searches once, with the question's own words, and answers from what was found.

    A model that was trained on the protocol reads the documents as the result of a search of its own, as the
    dialect renders them, and goes on freely. It always answers: where it does anything else, its reasoning is
    closed and the answer opened for it.
    """

    name = "standard-rag"

    def answer(self, question: Question) -> Steps[str]:
        """One search, one call of the model."""
        hits = yield from retrieve(question.text)
        return (yield from self.short_answer(question, f"{READ_AND_ANSWER}\n\n{passages(hits)}\n"))

    def run(self, questions: Sequence[Question], *, skip: Collection[int] = ()) -> Iterator[Transcript]:
        """Answer questions; see `Method.run`."""
        if not self.setting.knows_protocol:
            yield from super().run(questions, skip=skip)
            return
        env = self.setting.env
        for numbers, batch in batches(questions, env.num_envs, skip):
            found = search_for(env.retriever, [question.text for question in batch], env.top_k)
            hits = [each.hits for each in found if each.hits is not None]
            answered: Iterable[tuple[int, Transcript]] = enumerate(map(_invalid, batch))
            if len(hits) == len(batch):
                answered = answer_after_one_search(self.setting, numbers, batch, hits)
            for place, transcript in answered:
                yield dataclasses.replace(transcript, spending=found[place].spent)


def _invalid(question: Question) -> Transcript:
    verdict = FormatVerdict(problems=("the retriever failed",))
    return Transcript(question=question, stop_reason=StopReason.RETRIEVER_UNAVAILABLE, format=verdict)

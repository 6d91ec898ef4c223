"""Iter-RetGen: what the model said last time helps to find what it reads next."""

from __future__ import annotations

from typing import Literal

from pydantic import PositiveInt

from search_agents.config.sections import Section
from search_agents.methods.chain_of_thought import conclude, think
from search_agents.methods.prompts import passages
from search_agents.methods.standard_rag import READ_AND_ANSWER
from search_agents.methods.steps import Steps, retrieve
from search_agents.methods.stepwise import StepwiseMethod
from search_env.dialects import make_inert
from search_env.types import Question

__all__ = ["IterRetGen", "IterRetGenOptions"]


class IterRetGenOptions(Section):
    """Options of the method ``iter-retgen``."""

    variant: Literal["official", "flashrag"] = "official"
    """official: each round writes a chain of thought, as in the paper; flashrag: a short answer alone."""
    iterations: PositiveInt = 3
    """Rounds of search and generation (FlashRAG's number; the paper reports 1 to 7 and gains little after 2)."""


class IterRetGen(StepwiseMethod):
    """Iter-RetGen (Shao et al. 2023, arXiv 2305.15294): retrieval and generation that feed each other.

    Round t searches for the question followed by what round t-1 wrote, and writes anew from the question and the
    newest documents alone. T = min(`iterations`, the budget of searches, but at least 1).

    Cost: T searches and T calls of the model; official: one call more if the last chain of thought states no answer,
    which the paper leaves open.
    """

    name = "iter-retgen"
    Options = IterRetGenOptions

    def answer(self, question: Question) -> Steps[str]:
        """T rounds, and the answer of the last one."""
        chat, asked = self.setting.chat, make_inert(question.text)
        rounds = min(self.options.iterations, max(1, self.setting.env.rules.budget.max_searches))
        said = ""
        for _ in range(rounds):
            hits = yield from retrieve(f"{question.text} {said}" if said else question.text)
            documents = [hit.document for hit in hits]
            if self.options.variant == "official":
                said = yield from think(asked, documents, chat=chat)
            else:
                said = yield from self.short_answer(question, f"{READ_AND_ANSWER}\n\n{passages(hits)}\n")
        if self.options.variant == "flashrag":
            return said
        return (yield from conclude(asked, documents, said, chat=chat))

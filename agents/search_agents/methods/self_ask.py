"""Self-Ask: the model asks itself follow-up questions, and a search answers each before the next is asked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

from pydantic import PositiveInt

from search_agents.config.sections import Section
from search_agents.methods.chain_of_thought import RUN_ON, without_stop
from search_agents.methods.prompts import begun_prompt, first_line, passages
from search_agents.methods.steps import Steps, generate, note, retrieve
from search_agents.methods.stepwise import StepwiseMethod
from search_env.dialects import make_inert
from search_env.types import Hit, Question

__all__ = ["SelfAsk", "SelfAskOptions"]

_NEEDED = "Are follow up questions needed here:"
_FOLLOW_UP = "Follow up:"
_INTERMEDIATE = "Intermediate answer:"
_FINAL = "So the final answer is:"

_INSTRUCTION = f"""\
Answer the question. If it takes several facts, ask one follow up question for each fact, as in the examples.

Question: Where was the director of The Glass Heron born?
{_NEEDED} Yes.
{_FOLLOW_UP} Who directed The Glass Heron?
{_INTERMEDIATE} The Glass Heron was directed by Odalin Verrick.
{_FOLLOW_UP} Where was Odalin Verrick born?
{_INTERMEDIATE} Odalin Verrick was born in Harrowmere.
{_FINAL} Harrowmere

Question: Which is longer, the Teln or the Lesser Aune?
{_NEEDED} Yes.
{_FOLLOW_UP} How long is the Teln?
{_INTERMEDIATE} The Teln is 96 kilometres long.
{_FOLLOW_UP} How long is the Lesser Aune?
{_INTERMEDIATE} The Lesser Aune is 140 kilometres long.
{_FINAL} the Lesser Aune"""

_MOVE = re.compile(rf"({_FOLLOW_UP}|{_FINAL})[^\S\n]*([^\n]*)")


class SelfAskOptions(Section):
    """Options of the method ``self-ask``."""

    variant: Literal["official", "flashrag"] = "official"
    """official: what a search finds is the intermediate answer; flashrag: it is the context from which the model
    writes the intermediate answer itself."""
    follow_ups: Literal["given", "free"] = "given"
    """given: the model reads that follow-up questions are needed, as FlashRAG has it for questions of several hops;
    free: it says whether they are, as in the authors' code."""
    max_iterations: PositiveInt = 5
    """official: follow-up questions (the authors' code sets no limit); flashrag: calls of the model (its max_iter)."""
    top_k: PositiveInt | None = None
    """Documents of one search; null takes the setting's (the paper inserts one answer of a web search; ReARTeR's
    table takes 1)."""


class SelfAsk(StepwiseMethod):
    """Self-Ask (Press et al. 2023, arXiv 2210.03350) with a search engine.

    official: the model asks a follow-up question. What the search finds is written behind "Intermediate answer:", and
    the model goes on: with the next follow-up question, or with the final answer, which is demanded of it if it does
    neither or may ask no more. If nothing was found, it answers the follow-up question itself. A reply counts up to
    its first follow-up question or final answer. The authors' web search gives a short answer, or a snippet; the
    retrievers here give passages.

    Cost of h follow-up questions: h searches and h+1 calls of the model; one call more if a reply has neither question
    nor answer, and one more for each search that finds nothing. h is at most `max_iterations`, and at most the budget
    of searches.

    flashrag: it searches for the question first and then for each follow-up question; the prompt shows the newest
    documents only, and calls for a follow-up question and for an intermediate answer take turns. No final answer is
    demanded: without one the answer is empty. Cost: up to `max_iterations` calls, and one search more than follow-up
    questions (at most half the calls, rounded up).
    """

    name = "self-ask"
    Options = SelfAskOptions

    def answer(self, question: Question) -> Steps[str]:
        """Ask, search, and ask on."""
        official = self.options.variant == "official"
        return (yield from self._with_answers(question) if official else self._with_context(question))

    def _with_answers(self, question: Question) -> Steps[str]:
        """The authors' loop."""
        chain = self._beginning
        for _ in range(min(self.options.max_iterations, self.setting.env.rules.budget.max_searches)):
            move = _read((yield from self._go_on(question, chain, "follow-up question", stop=_INTERMEDIATE)))
            if move.kind == _FINAL and move.text:
                return move.text
            if move.kind != _FOLLOW_UP or not move.text:
                break
            hits = yield from retrieve(move.text, self.options.top_k)
            chain = f"{chain}{move.said}\n{_INTERMEDIATE}"
            found = _as_answer(hits) or (yield from self._own_answer(question, chain))
            chain = f"{chain} {found}\n"
        demanded = f"{chain.rstrip()}\n{_FINAL}"
        return first_line((yield from self._go_on(question, demanded, "final answer", stop="\n")))

    def _own_answer(self, question: Question, chain: str) -> Steps[str]:
        yield from note("nothing found", "the model answers the follow-up question itself")
        return first_line((yield from self._go_on(question, chain, "intermediate answer", stop="\n")))

    def _with_context(self, question: Question) -> Steps[str]:
        """FlashRAG's loop."""
        hits = yield from retrieve(question.text, self.options.top_k)
        searches, chain = 1, self._beginning
        for number in range(self.options.max_iterations):
            asks = number % 2 == 0
            purpose, stop = ("follow-up question", _INTERMEDIATE) if asks else ("intermediate answer", _FOLLOW_UP)
            reply = yield from self._go_on(question, chain, purpose, stop=stop, hits=hits)
            move = _read(reply)
            if move.kind == _FINAL:
                return move.text
            if asks and move.kind == _FOLLOW_UP:
                chain = f"{chain}{move.said}\n{_INTERMEDIATE}"
                if move.text and searches < self.setting.env.rules.budget.max_searches:
                    hits, searches = (yield from retrieve(move.text, self.options.top_k)), searches + 1
            else:
                chain = f"{chain}{reply.partition(_FOLLOW_UP)[0].rstrip()}\n"
        return ""

    @property
    def _beginning(self) -> str:
        return f"{_NEEDED} Yes.\n" if self.options.follow_ups == "given" else _NEEDED

    def _go_on(
        self, question: Question, chain: str, purpose: str, *, stop: str, hits: Sequence[Hit] | None = None
    ) -> Steps[str]:
        """What the model writes after the chain, up to where it is stopped."""
        context = "" if hits is None else f"{passages(hits)}\n"
        asked = f"{context}Question: {make_inert(question.text)}"
        prompt = begun_prompt(_INSTRUCTION, asked, chain, chat=self.setting.chat)
        stops = (stop, *RUN_ON)
        return without_stop((yield from generate(purpose, prompt, stop=stops)).text, stops)


class _Move(NamedTuple):
    """The first thing in a reply that counts."""

    kind: str
    """The words it begins with; empty if there is nothing."""
    text: str
    """The follow-up question, or the answer."""
    said: str
    """The reply up to its end."""


def _read(reply: str) -> _Move:
    found = _MOVE.search(reply)
    return _Move(found[1], make_inert(found[2]), reply[: found.end()].rstrip()) if found else _Move("", "", reply)


def _as_answer(hits: Sequence[Hit]) -> str:
    """Documents on one line, in place of an answer."""
    return " ".join(f"{make_inert(hit.document.title)}: {make_inert(hit.document.text)}" for hit in hits)

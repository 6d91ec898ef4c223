"""IRCoT: every sentence of a chain of thought is the next query, and a reader answers from all that was found."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from pydantic import PositiveInt

from search_agents.config.sections import Section
from search_agents.methods.chain_of_thought import ANSWER_MARK, first_sentence, reason, stated_answer, think
from search_agents.methods.prompts import first_line, numbered_passages
from search_agents.methods.standard_rag import READ_AND_ANSWER
from search_agents.methods.steps import Steps, note, retrieve
from search_agents.methods.stepwise import StepwiseMethod
from search_env.dialects import make_inert
from search_env.types import Document, Hit, Question

__all__ = ["IRCoT", "IRCoTOptions", "is_inference"]

_INFERENCE = re.compile(r"(?:thus|so|that is,|therefore|hence)(?![^\W\d_])|.*\d [+-] \d[\d,.]* = \d", re.IGNORECASE)


class IRCoTOptions(Section):
    """Options of the method ``ircot``."""

    variant: Literal["official", "flashrag"] = "official"
    """official: the authors' algorithm; flashrag: FlashRAG's, which keeps whole thoughts, shows the documents worst
    first and has no reader."""
    top_k: PositiveInt | None = None
    """Documents of one search; null takes the setting's (the paper tunes 2, 4, 6 or 8, and takes 6 for HotpotQA)."""
    max_documents: PositiveInt = 15
    """official: documents that are collected in all, first come first kept (the authors' configs)."""
    max_sentences: PositiveInt = 10
    """official: sentences of the chain, one search each (the authors' configs)."""
    reader: Literal["chain-of-thought", "direct"] = "chain-of-thought"
    """official: how the answer is read from the collected documents; the paper has both."""
    max_iterations: PositiveInt = 2
    """flashrag: thoughts (its default; the script of its published numbers gives 5, ReARTeR's 2)."""


class IRCoT(StepwiseMethod):
    """IRCoT (Trivedi et al. 2023, arXiv 2212.10509): retrieval interleaved with a chain of thought.

    official: searches for the question; then writes the next sentence of the chain, keeps only that one, and
    searches for it, until a sentence states the answer. The documents of all searches are collected, up to a cap, and
    a separate reader answers from them; the chain is thrown away. A sentence that merely infers ("Thus …") is no
    query: the sentence before it is, or the question. S = min(`max_sentences`, the budget of searches, but at least 1).

    Cost: up to S searches and as many calls, and one or two calls of the reader (see `reason`; direct: one).

    flashrag: up to `max_iterations` whole thoughts, each searched for in full; documents are merged with the best of
    their scores and shown in ascending order; the answer is what follows "So the answer is:", else everything that
    was thought. Cost: up to `max_iterations` calls and one search more than that.

    Beside the authors' code: sentences are cut by rule and not by spaCy; documents are the same if their ids are, not
    if their words nearly are; the question words stay in the query, for the engines here weigh them themselves.
    """

    name = "ircot"
    Options = IRCoTOptions

    def answer(self, question: Question) -> Steps[str]:
        """Interleave, then read."""
        if self.options.variant == "flashrag":
            return (yield from self._think_aloud(question))
        documents = yield from self._collect(question)
        yield from note("collected", f"{len(documents)} documents: {'; '.join(each.title for each in documents)}")
        return (yield from self._read(question, documents))

    def _collect(self, question: Question) -> Steps[list[Document]]:
        """The documents that the chain of thought leads to."""
        collected: dict[str, Document] = {}
        sentences: list[str] = []
        for _ in range(min(self.options.max_sentences, self._searches)):
            query = next((each for each in reversed(sentences) if not is_inference(each)), question.text)
            hits = yield from retrieve(query, self.options.top_k)
            for hit in hits:
                if len(collected) < self.options.max_documents:
                    collected.setdefault(hit.document.id, hit.document)
            so_far = " ".join(sentences)
            written = yield from self._think(question, list(collected.values()), so_far, purpose="next sentence")
            sentence = first_sentence(written)
            if not sentence:
                break
            yield from note("kept sentence", sentence)
            sentences.append(sentence)
            if stated_answer(sentence) is not None:
                break
        return list(collected.values())

    def _read(self, question: Question, documents: Sequence[Document]) -> Steps[str]:
        """The answer of the reader, who sees nothing of the chain."""
        if self.options.reader == "direct":
            task = f"{READ_AND_ANSWER}\n\n{numbered_passages(documents)}\n"
            return (yield from self.short_answer(question, task, purpose="reader"))
        return (yield from reason(make_inert(question.text), documents, chat=self.setting.chat, purpose="reader"))

    def _think_aloud(self, question: Question) -> Steps[str]:
        """FlashRAG's loop."""
        found: dict[str, Hit] = {}
        shown = yield from retrieve(question.text, self.options.top_k)
        _merge(found, shown)
        documents = [hit.document for hit in shown]
        thoughts: list[str] = []
        for number in range(1, self.options.max_iterations + 1):
            thought = yield from self._think(question, documents, " ".join(thoughts), purpose="thought")
            thoughts.append(make_inert(thought))
            if ANSWER_MARK in thoughts[-1]:
                break
            if number < self._searches and thoughts[-1]:
                _merge(found, (yield from retrieve(thoughts[-1], self.options.top_k)))
                # sorted is stable: of equal scores the one that was found first comes first, as in FlashRAG.
                documents = [hit.document for hit in sorted(found.values(), key=lambda hit: hit.score)]
        chain = " ".join(thoughts)
        _, mark, after = chain.partition(ANSWER_MARK)
        return first_line(after) if mark else chain.strip()

    def _think(self, question: Question, documents: Sequence[Document], so_far: str, *, purpose: str) -> Steps[str]:
        asked = make_inert(question.text)
        return (yield from think(asked, documents, chat=self.setting.chat, so_far=so_far, purpose=purpose))

    @property
    def _searches(self) -> int:
        return max(1, self.setting.env.rules.budget.max_searches)


def is_inference(sentence: str) -> bool:
    """Whether a sentence concludes or calculates instead of telling a fact: nothing to search for (IRCoT's code).

    Example:
        >>> is_inference("So he is older."), is_inference("Sofia is a city."), is_inference("It is 12 - 5 = 7 years.")
        (True, False, True)
    """
    return _INFERENCE.match(sentence.strip()) is not None


def _merge(found: dict[str, Hit], hits: Sequence[Hit]) -> None:
    """Add hits; of a document that was found before, the better score counts."""
    for hit in hits:
        known = found.get(hit.document.id)
        if known is None or hit.score > known.score:
            found[hit.document.id] = hit

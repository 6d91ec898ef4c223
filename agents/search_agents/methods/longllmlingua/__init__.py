"""LongLLMLingua: the documents that make the question likely, and of these the tokens that the question makes likely.

Nothing is trained: the model that answers also weighs what it will read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import Field, NonNegativeInt, PositiveInt

from search_agents.config.sections import Section
from search_agents.engines.base import Capability
from search_agents.methods.compression import document_text, shown
from search_agents.methods.longllmlingua.compress import (
    contrast,
    dynamic_ratios,
    mean_loss,
    segments,
    strongest,
    within_budget,
)
from search_agents.methods.longllmlingua.recovery import CompressedText, recover
from search_agents.methods.standard_rag import READ_AND_ANSWER
from search_agents.methods.steps import Steps, note, retrieve, score_all
from search_agents.methods.stepwise import StepwiseMethod
from search_env.dialects import make_inert
from search_env.types import Question

__all__ = ["RESTRICTION", "LongLLMLingua", "LongLLMLinguaOptions", "question_likelihood"]

RESTRICTION = "What is written above holds the answer to this question."
"""The sentence that ties the question to the document before it, so that its likelihood depends on the document."""


class LongLLMLinguaOptions(Section):
    """What the paper leaves open; the defaults are those of FlashRAG, with which the table's row was run."""

    rate: Annotated[float, Field(gt=0, le=1)] = 0.55
    """Tokens to keep, as a share of those of all documents."""
    context_budget: NonNegativeInt = 100
    """Tokens by which the documents that stay may exceed the rate before their tokens are weighed."""
    order: Literal["sort", "original"] = "sort"
    """Order of the documents that stay: best first, against being lost in the middle, or as they were found."""
    dynamic_ratio: Annotated[float, Field(ge=0, le=1)] = 0.3
    """How far the rate of the best document lies above the mean, and that of the worst below."""
    segment_tokens: PositiveInt = 200
    """Tokens that are weighed at once, after what was kept of those before."""
    recover: bool = True
    """Write the answer as the documents had it before compression (section 4.4 of the paper; FlashRAG does not)."""


class LongLLMLingua(StepwiseMethod):
    """Jiang et al. 2024 (arXiv:2310.06839): ranks documents, then drops tokens, both by the question.

    Documents are ranked by the likelihood of the question and a fixed sentence after each, and kept up to a budget.
    Of these, segment by segment, the tokens stay that the question makes likelier than they are without it, the more
    of a document the better its rank. What the answer takes from a mutilated word is recovered.

    One search; of the model one text, one score a document and two a segment that is kept.

    It is written anew, and the authors' package is no alternative to it: llmlingua 0.2.2 fails on texts of several
    segments with current releases of transformers. It differs in three things. A segment ends with its document, so
    that one rate holds for it. A limit on the tokens that are left makes the budget exact, where theirs is the mean of
    a threshold. And recovery follows the very tokens that were kept, where theirs searches the original for them.
    """

    name = "longllmlingua"
    needs = frozenset({Capability.GENERATE, Capability.SCORE})
    Options = LongLLMLinguaOptions
    options: LongLLMLinguaOptions

    def answer(self, question: Question) -> Steps[str]:
        """Search, compress, answer, recover."""
        hits = yield from retrieve(question.text)
        texts = yield from self._compress(make_inert(question.text), [document_text(hit.document) for hit in hits])
        read = shown([text.text for text in texts])
        answer = yield from self.short_answer(question, f"{READ_AND_ANSWER}\n\n{read}\n")
        recovered = recover(answer, texts) if self.options.recover else answer
        if recovered != answer:
            yield from note("recovery", f"{answer} -> {recovered}")
        return recovered

    def _compress(self, question: str, documents: Sequence[str]) -> Steps[list[CompressedText]]:
        if not documents:
            return []
        options = self.options
        losses, tokens = yield from question_likelihood(question, documents)
        ranked = sorted(range(len(documents)), key=lambda index: losses[index])
        target = int(options.rate * sum(tokens))
        kept = within_budget(ranked, tokens, target + options.context_budget)
        yield from note("documents", _ranking(documents, losses, ranked, kept))
        base = min(1.0, target / sum(tokens[index] for index in kept))
        ratios = dict(zip(kept, dynamic_ratios(len(kept), base, options.dynamic_ratio), strict=True))
        compressed: list[CompressedText] = []
        for index in kept if options.order == "sort" else sorted(kept):
            left = target - sum(sum(text.kept) for text in compressed)
            parts = segments(documents[index], tokens[index], options.segment_tokens)
            before = "".join(f"{text.text}\n" for text in compressed)
            compressed.append((yield from _keep_tokens(question, before, parts, ratios[index], left)))
        kept_tokens = sum(sum(text.kept) for text in compressed)
        yield from note("compression", f"{kept_tokens} of {sum(tokens)} tokens\n{shown([t.text for t in compressed])}")
        return compressed


def question_likelihood(question: str, documents: Sequence[str]) -> Steps[tuple[list[float], list[int]]]:
    """How unlikely the question is after each document: the document's rank, the least loss first.

    Jiang et al. 2024 (LongLLMLingua), equation 2: the mean loss of the tokens of the question and `RESTRICTION`.

    Returns:
        Loss, and length in tokens, of each document.
    """
    asked = f" {question} {RESTRICTION}"
    scores = yield from score_all("document score", [(document, asked) for document in documents])
    return [mean_loss(score.logprobs) for score in scores], [score.context_tokens for score in scores]


def _keep_tokens(question: str, before: str, parts: Sequence[str], ratio: float, limit: int) -> Steps[CompressedText]:
    """Compress one document, segment by segment, each after what is kept of all before it.

    Args:
        question: The question.
        before: What is kept of the documents before.
        parts: The segments of the document.
        ratio: Share of the tokens to keep.
        limit: The most tokens to keep.
    """
    compressed = CompressedText((), ())
    for part in parts:
        prefix = before + compressed.text
        plain, asked = yield from score_all("token scores", [(prefix, part), (f"{question}\n{prefix}", part)])
        scores = contrast(plain.logprobs, asked.logprobs)
        count = max(0, min(int(ratio * len(scores)), limit - sum(compressed.kept)))
        compressed = CompressedText(compressed.pieces + plain.tokens, compressed.kept + strongest(scores, count))
    return compressed


def _ranking(documents: Sequence[str], losses: Sequence[float], ranked: Sequence[int], kept: Sequence[int]) -> str:
    lines = [
        f"{losses[index]:.3f} {'kept' if index in kept else 'left out'}: {documents[index][:60]}" for index in ranked
    ]
    return "\n".join(lines)

"""One question over the user's own documents, answered by an agent in the environment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from search_agents.config import EvalConfig
from search_agents.engines.build import make_engine
from search_agents.evaluation.evaluate import HeldOut
from search_agents.learning.start import quiet_libraries
from search_env import Dataset
from search_env.errors import RetrieverUnavailable
from search_env.metrics import mentions
from search_env.types import Document, Question, StopReason, Transcript

__all__ = ["Passage", "Reply", "ask", "reply_from"]


@dataclass(frozen=True, kw_only=True)
class Passage:
    """A document that the agent read on the way to its answer."""

    document: Document
    query: str
    """The search that found it first."""
    holds_answer: bool
    """Whether the answer's words stand in it."""


@dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer and what it rests on."""

    question: str
    answer: str | None
    """None if the episode ended without one."""
    stop_reason: str
    queries: tuple[str, ...]
    passages: tuple[Passage, ...]
    """In the order in which they were first read."""

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def ask(question: str, documents: Sequence[Document], config: EvalConfig, *, temperature: float) -> Reply:
    """Answer a question from documents.

    Args:
        question: In plain words.
        documents: The corpus; its index is kept in the cache, so a second question is quick.
        config: Model, protocol and budgets.
        temperature: 0 is greedy.

    Raises:
        ConfigError: If a setting is wrong.
        ModelError: If the model cannot be used.
        RetrieverUnavailable: If the search failed for good.
    """
    torch.set_num_threads(config.run.threads)
    quiet_libraries()
    # Nothing is judged here, so the question has no gold answer.
    asked = Question(id="question", text=question, answers=("",))
    data = Dataset(name="own-documents", split=config.evaluation.split, questions=(asked,), documents=tuple(documents))
    held_out = HeldOut(
        config.model_copy(update={"evaluation": config.evaluation.model_copy(update={"batch_size": 1})}), data=data
    )
    found = held_out.measure("r1-searcher", make_engine(config.model), temperature=temperature)
    return reply_from(found.transcripts[0])


def reply_from(transcript: Transcript) -> Reply:
    """What a finished episode says to the one who asked.

    Raises:
        RetrieverUnavailable: If the search failed for good.
    """
    if transcript.stop_reason is StopReason.RETRIEVER_UNAVAILABLE:
        raise RetrieverUnavailable(
            "the search failed for good, so there is no answer. Check the retriever and ask again."
        )
    answer = transcript.answer or None
    passages: dict[str, Passage] = {}
    for turn in transcript.turns:
        for hit in turn.hits:
            holds_answer = answer is not None and mentions(f"{hit.document.title} {hit.document.text}", answer)
            passage = Passage(document=hit.document, query=turn.action.text, holds_answer=holds_answer)
            passages.setdefault(hit.document.id, passage)
    return Reply(
        question=transcript.question.text,
        answer=answer,
        stop_reason=str(transcript.stop_reason or ""),
        queries=transcript.queries,
        passages=tuple(passages.values()),
    )

"""Rows about training questions, written as they come: an interrupted collection goes on where it was.

Also what is collected for the explanation model: critiques, each with what the reward
model thought of the step before and after it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path as FilePath
from typing import Any, Protocol

from search_agents.learning.run_folder import append_jsonl, read_jsonl, write_jsonl
from search_agents.methods.base import Method
from search_agents.methods.rearter import ReARTeR
from search_agents.methods.rearter.annotate import is_right
from search_agents.methods.rearter.reasoning import sum_up
from search_agents.methods.steps import Steps
from search_env.types import Prompt, Question, StopReason

__all__ = ["Collector", "CritiqueCollector", "collect", "preferences"]


class Collector(Method, Protocol):
    """A method that finds something out about each question beside the answer."""

    records: dict[str, dict[str, Any]]
    """What was found, by the id of the question; its ``id`` is part of it."""


def collect(collector: Collector, questions: Sequence[Question], file: FilePath) -> list[dict[str, Any]]:
    """Let a collector see questions, and keep what it finds in a file, one line each.

    Args:
        collector: What finds something out.
        questions: The same ones in the same order when a collection goes on: what is sampled for a question depends on
            its place.
        file: The JSONL file; questions that it knows are not asked again.

    Returns:
        What was found, in the order of the questions. A question whose prompts outgrew the budget of tokens has no
        more than its ``id``; one that the retriever failed for has no row, and is asked again next time.
    """
    rows = {row["id"]: row for row in read_jsonl(file)}
    if file.is_file():
        write_jsonl(file, rows.values())  # whole lines only, so that the next one begins on its own
    file.parent.mkdir(parents=True, exist_ok=True)
    known = {number for number, question in enumerate(questions) if question.id in rows}
    for transcript in collector.run(questions, skip=known):
        if transcript.stop_reason is not StopReason.RETRIEVER_UNAVAILABLE:
            row = collector.records.pop(transcript.question.id, {"id": transcript.question.id})
            append_jsonl(file, row)
            rows[row["id"]] = row
    return [rows[question.id] for question in questions if question.id in rows]


class CritiqueCollector(ReARTeR):
    """Answers training questions and keeps every critique with the step's value before and after it."""

    records: dict[str, dict[str, Any]]

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.records = {}

    def answer(self, question: Question) -> Steps[str]:
        """See `ReARTeR.answer`."""
        reasoned = yield from self.reason(question)
        answer = yield from sum_up(self._wording(question), reasoned.path)
        self.records[question.id] = {
            "id": question.id,
            "right": is_right(answer, question.answers),
            "critiques": [
                {
                    "system": one.prompt.system,
                    "user": one.prompt.user,
                    "critique": one.critique,
                    "action": str(one.action.kind),
                    "before": one.before,
                    "after": one.after,
                }
                for one in reasoned.refinements
            ],
        }
        return answer


def preferences(records: Iterable[dict[str, Any]], *, chat: bool, base_weight: float = 1.0) -> Iterator[dict[str, Any]]:
    """Rows of an unpaired preference dataset, as TRL's ``KTOTrainer`` reads it: ``prompt``, ``completion``, ``label``.

    A critique is desirable if the step's value rose. Only critiques of questions that were answered right are kept (the
    authors' code). ``weight`` is the paper's: ``lambda_U = lambda_0 exp(r1 - r2)`` for an undesirable critique, which
    counts the more the further the value fell, and lambda_0 for a desirable one. ``KTOTrainer`` has one weight for all
    rows of a label and leaves that column aside; the training itself is TRL's, and no part of this package.

    Args:
        records: Of a `CritiqueCollector`.
        chat: Whether rows are conversations or plain text.
        base_weight: lambda_0.
    """
    for record in records:
        for one in record.get("critiques", ()) if record.get("right") else ():
            rose = one["after"] > one["before"]
            prompt = Prompt(system=one["system"], user=one["user"])
            yield {
                "prompt": _messages(system=prompt.system, user=prompt.user) if chat else prompt.text,
                "completion": _messages(assistant=one["critique"]) if chat else f" {one['critique']}",
                "label": rose,
                "weight": base_weight if rose else base_weight * math.exp(one["before"] - one["after"]),
            }


def _messages(**said: str) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in said.items()]

"""What retrieval does for the model in use: training questions answered by a chain of thought, without and with it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from search_agents.config import differing_keys
from search_agents.learning.run_folder import append_jsonl, read_jsonl, write_json, write_jsonl
from search_agents.methods.base import Setting
from search_agents.methods.chain_of_thought import reason
from search_agents.methods.skr.rule import label_of
from search_agents.methods.steps import Steps, retrieve
from search_agents.methods.stepwise import StepwiseMethod
from search_env.dialects import make_inert
from search_env.errors import RetrieverUnavailable, RunError
from search_env.metrics import exact_match
from search_env.types import Question, StopReason, Transcript

__all__ = ["collect_labels", "think_it_over"]


def think_it_over(setting: Setting, question: Question, *, retrieves: bool) -> Steps[str]:
    """Answer by a chain of thought, from documents or without; what SKR chooses between."""
    documents = None
    if retrieves:
        documents = [hit.document for hit in (yield from retrieve(question.text))]
    return (yield from reason(make_inert(question.text), documents, chat=setting.chat))


def collect_labels(setting: Setting, questions: Sequence[Question], folder: Path) -> list[dict[str, Any]]:
    """Answer training questions both ways and label them by exact match.

    Each question is a line of ``labels.jsonl`` in the folder as soon as both answers are there, and is not asked again.

    Args:
        setting: The model and the retriever that the labels are for.
        questions: Training questions; their gold answers are read.
        folder: Where the labels are kept.

    Returns:
        One row a question, in order: id, question, both answers with their exact match, and label.

    Raises:
        RetrieverUnavailable: If searches failed for good; what was labelled is kept.
        RunError: If the folder holds labels of another model, retriever, corpus or budget.
    """
    _require_same(folder, _circumstances(setting))
    file = folder / "labels.jsonl"
    rows = {row["id"]: row for row in read_jsonl(file)}
    write_jsonl(file, rows.values())  # whole lines only, so that the next one begins on its own
    done = {number for number, question in enumerate(questions) if question.id in rows}
    ways = [_OneWay(setting, retrieves=retrieves).run(questions, skip=done) for retrieves in (False, True)]
    halves: dict[str, dict[bool, Transcript]] = {}
    failed = 0
    for pair in zip(*ways, strict=True):
        for retrieves, transcript in enumerate(pair):
            both = halves.setdefault(transcript.question.id, {})
            both[bool(retrieves)] = transcript
            if len(both) < 2:
                continue
            if both[True].stop_reason is StopReason.RETRIEVER_UNAVAILABLE:
                failed += 1
                continue
            row = _row(both[False], both[True])
            append_jsonl(file, row)
            rows[row["id"]] = row
    if failed:
        raise RetrieverUnavailable(
            f"{failed} of {len(questions)} questions have no label, for their search failed for good; the others are "
            f"kept in {file}. Mend the retriever and run the same command again."
        )
    return [rows[question.id] for question in questions]


class _OneWay(StepwiseMethod):
    """One of SKR's two ways to answer, for every question."""

    name = "skr-one-way"

    def __init__(self, setting: Setting, *, retrieves: bool) -> None:
        super().__init__(setting)
        self._retrieves = retrieves

    def answer(self, question: Question) -> Steps[str]:
        return think_it_over(self.setting, question, retrieves=self._retrieves)


def _row(without: Transcript, with_: Transcript) -> dict[str, Any]:
    question = without.question
    em_without, em_with = (exact_match(each.answer or "", question.answers) for each in (without, with_))
    return {
        "id": question.id,
        "question": question.text,
        "without": without.answer,
        "with": with_.answer,
        "em_without": em_without,
        "em_with": em_with,
        "label": str(label_of(em_without, em_with)),
    }


def _circumstances(setting: Setting) -> dict[str, Any]:
    """Everything that the labels depend on."""
    env = setting.env
    return {
        "model": setting.engine.name,
        "dataset": env.dataset.fingerprint,
        "retriever": env.retriever.fingerprint,
        "top_k": env.top_k,
        "temperature": setting.sampling.temperature,
        "max_segment_tokens": setting.sampling.max_tokens,
        "max_tokens": setting.max_tokens,
        "chat": setting.chat,
        "seed": setting.seed,
    }


def _require_same(folder: Path, circumstances: dict[str, Any]) -> None:
    """Keep what the labels depend on beside them, and refuse to go on under other circumstances."""
    file = folder / "collected.json"
    if file.is_file():
        if keys := differing_keys(json.loads(file.read_text(encoding="utf-8")), circumstances):
            raise RunError(
                f"{folder} holds labels that were collected with other settings; they differ in: {', '.join(keys)}. "
                "Give another folder with --out, or collect with the same settings."
            )
        return
    write_json(file, circumstances)

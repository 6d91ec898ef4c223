"""Labels for the extractive compressor: after which sentence does the model find the gold answer likeliest?

Rows are written as they come, and those that are there already are not asked for again.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from search_agents.engines.base import ScoringRequest
from search_agents.methods.base import Setting, batches
from search_agents.methods.recomp.selection import Candidate, candidates
from search_env.dialects import make_inert
from search_env.errors import ConfigError, RunError
from search_env.types import Question

__all__ = ["LABELS", "LabelledQuestion", "collect", "supporting"]

LABELS = "labels.jsonl"


@dataclass(frozen=True, kw_only=True)
class LabelledQuestion:
    """A question with its candidate sentences and what each is worth."""

    id: str
    question: str
    texts: tuple[str, ...]
    """The candidates, title and sentence; none if nothing was found, or one is too long for the model."""
    logprobs: tuple[float, ...]
    """Log-likelihood of the gold answer after each."""
    without: float
    """Log-likelihood of the gold answer after no sentence; 0 for a question with a candidate that is too long."""
    supporting: tuple[int, ...]
    """Indices of the candidates that support the answer, see `supporting`; training does not look at them."""


def collect(setting: Setting, questions: Sequence[Question], folder: Path) -> list[LabelledQuestion]:
    """Search for each question and weigh every sentence that is found.

    Args:
        setting: Gives engine, retriever and number of documents.
        questions: Training questions.
        folder: Keeps the rows, in ``labels.jsonl``.

    Returns:
        One row a question for which anything was found and the model could read all of it.

    Raises:
        ConfigError: If the folder's rows were collected with another model or retriever.
        RetrieverUnavailable: If the retriever failed for good; the rows so far are kept.
        EngineUnavailable: If the model's server did; likewise.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / LABELS
    asked = {
        "engine": setting.engine.name,
        "retriever": setting.env.retriever.fingerprint,
        "top_k": setting.env.top_k,
    }
    rows = {row.id: row for row in _read(file, asked)}
    if not file.exists():
        file.write_text(json.dumps(asked) + "\n", encoding="utf-8")
    with file.open("a", encoding="utf-8") as stream:
        missing = [number for number, question in enumerate(questions) if question.id in rows]
        for _, batch in batches(questions, setting.env.num_envs, missing):
            for row in _label(setting, batch):
                rows[row.id] = row
                stream.write(json.dumps(asdict(row)) + "\n")
            stream.flush()
    return [rows[question.id] for question in questions if rows[question.id].texts]


def supporting(question: Question, found: Sequence[Candidate]) -> tuple[int, ...]:
    """Indices of the sentences of gold documents that hold the answer, or that of a hop.

    The sets tell which documents are gold, not which sentences; this is the closest that can be had.
    """
    titles = {_words(make_inert(title)) for title in question.gold_titles}
    answers = {_words(text) for text in (*question.answers, *(hop.answer for hop in question.decomposition))} - {"  "}
    return tuple(
        index
        for index, candidate in enumerate(found)
        if _words(candidate.title) in titles and any(answer in _words(candidate.sentence) for answer in answers)
    )


def _label(setting: Setting, batch: Sequence[Question]) -> Iterator[LabelledQuestion]:
    hits = setting.env.retriever.search([question.text for question in batch], setting.env.top_k)
    found = [candidates([hit.document for hit in each]) for each in hits]
    requests = [
        ScoringRequest(context=_context(question, text), text=f" {make_inert(question.answers[0])}")
        for question, each in zip(batch, found, strict=True)
        for text in ("", *(candidate.text for candidate in each))
    ]
    scores = iter(setting.engine.score(requests))
    for question, each in zip(batch, found, strict=True):
        scored = [next(scores) for _ in range(len(each) + 1)]
        fitting = [sum(one.logprobs) for one in scored if one is not None]
        # A sentence that the model cannot read whole has no label, and a question is labelled whole or not at all.
        weighed, (without, *after) = (each, fitting) if len(fitting) == len(scored) else ([], [0.0])
        yield LabelledQuestion(
            id=question.id,
            question=make_inert(question.text),
            texts=tuple(candidate.text for candidate in weighed),
            logprobs=tuple(after),
            without=without,
            supporting=supporting(question, weighed),
        )


def _context(question: Question, text: str) -> str:
    asked = f"Question: {make_inert(question.text)}\nAnswer:"
    return f"{text}\n{asked}" if text else asked


def _read(file: Path, asked: dict[str, object]) -> Iterator[LabelledQuestion]:
    """The rows of a file; what a killed run wrote last may be torn, and is cut off."""
    if not file.exists():
        return
    whole, _, torn = file.read_text(encoding="utf-8").rpartition("\n")
    if torn:
        file.write_text(f"{whole}\n" if whole else "", encoding="utf-8")
    try:
        header, *rows = map(json.loads, whole.splitlines())
    except ValueError as error:
        raise RunError(f"{file} cannot be read: {error}. Remove it, or take another folder.") from None
    if header != asked:
        raise ConfigError(f"{file} holds labels of {header}, not of {asked}. Take another folder.")
    for row in rows:
        fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in row.items()}
        yield LabelledQuestion(**fields)


def _words(text: str) -> str:
    """The words of a text in lower case, with a blank on either side, so that no match begins within a word."""
    return f" {' '.join(''.join(c if c.isalnum() else ' ' for c in text.lower()).split())} "

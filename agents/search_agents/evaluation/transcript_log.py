"""Transcripts on disk: written as they come, read again when an evaluation is resumed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from search_agents.learning.run_folder import append_jsonl, read_jsonl, write_jsonl
from search_agents.rollout.episode import read_transcript
from search_env import metrics
from search_env.errors import RunError
from search_env.types import Question, StopReason, Transcript

__all__ = ["TranscriptLog", "is_valid", "transcript_record"]


class TranscriptLog:
    """Transcripts of an evaluation, one line each, that outlive the process that writes them.

    Args:
        file: The JSONL file; a torn last line is dropped, and its question will be asked again.

    Raises:
        RunError: If another line cannot be read.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        try:
            self._rows = {row["question"]["id"]: row for row in read_jsonl(file)}
            self.transcripts = {id_: read_transcript(row) for id_, row in self._rows.items()}
            self.seconds: float = max((row["elapsed"] for row in self._rows.values()), default=0.0)
            """How long the evaluation had taken when it wrote the last line, all its starts together."""
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{file}: a line is no transcript: {error!r}. Remove that line and resume again.") from error
        if file.is_file():
            write_jsonl(file, self._rows.values())  # whole lines only, so that the next one begins on its own

    def append(self, transcript: Transcript, seconds: float) -> None:
        """Write a transcript; it takes the place of an earlier one of the same question.

        Args:
            transcript: Of a finished episode.
            seconds: How long the evaluation has taken so far, all its starts together.
        """
        row = {**transcript_record(transcript), "elapsed": round(seconds, 3)}
        append_jsonl(self._file, row)
        self._rows[transcript.question.id] = row
        self.transcripts[transcript.question.id] = transcript
        self.seconds = seconds

    def finish(self, questions: Sequence[Question]) -> None:
        """Put the lines in the order of the questions, one line each."""
        write_jsonl(self._file, [self._rows[question.id] for question in questions])


def is_valid(transcript: Transcript) -> bool:
    """Whether an episode counts: the retriever did not fail."""
    return transcript.stop_reason is not StopReason.RETRIEVER_UNAVAILABLE


def transcript_record(transcript: Transcript) -> dict[str, Any]:
    """A transcript as plain values, with answer, queries and metrics beside it; an invalid one has no metrics.

    What the searches have spent is part of it if they have spent anything, and so are the tokens of a call if they are
    known.
    """
    record = {
        **dataclasses.asdict(transcript),
        "answer": transcript.answer,
        "queries": list(transcript.queries),
        "metrics": metrics.score(transcript.answer, transcript.question.answers) if is_valid(transcript) else None,
    }
    if not transcript.spending:
        del record["spending"]
    for call in chain.from_iterable(turn["calls"] for turn in record["turns"]):
        if not call["token_ids"]:
            del call["token_ids"], call["logprobs"]
    return record

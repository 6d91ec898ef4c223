"""Scores and cost of stored episodes: the one computation behind every row, when it is made and when it is shown."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from search_agents.evaluation.judge import Judgement, JudgementLog, judgements_beside, verdicts
from search_agents.evaluation.saved import read_saved
from search_agents.evaluation.scorer import Scores, score
from search_agents.evaluation.transcript_log import is_valid
from search_agents.leaderboard.row import Cost, Measured, RowScores, digest
from search_env.datasets.files import read_bytes
from search_env.errors import RunError
from search_env.types import Transcript

__all__ = ["differences", "judge_named", "judgements_of", "measure", "read_episodes"]

_METRICS = {"f1": "f1", "em": "em", "acc_r": "cem", "cem": "cem_contiguous", "acc_l": "acc_l"}
_DIGITS = 6
_TOLERANCE = 2e-6


def read_episodes(file: Path) -> list[Transcript]:
    """The episodes of an evaluation, each of another question and all of them valid.

    Raises:
        DatasetError: If the file cannot be read, or a line is no episode.
        RunError: If a question is there twice, or an episode does not count.
    """
    transcripts = [episode.transcript for episode in read_saved(file, "ours")]
    (id_, times), *_ = Counter(transcript.question.id for transcript in transcripts).most_common(1)
    if times > 1:
        raise RunError(f"{file}: holds {times} episodes of the question {id_!r}; one counts. Evaluate anew.")
    if invalid := sum(not is_valid(transcript) for transcript in transcripts):
        raise RunError(
            f"{file}: {invalid} of {len(transcripts)} episodes are invalid, for their search failed for good. "
            f"Ask their questions again: search-env resume {file.parent}"
        )
    return transcripts


def judge_named(file: Path, transcripts: Sequence[Transcript], judge: str | None) -> str | None:
    """The whole name of a judge, given that or its model alone; the name as it is where it has judged nothing.

    Raises:
        ConfigError: If several judges are called that.
    """
    return judge and (JudgementLog(judgements_beside(file)).named(transcripts, judge) or judge)


def judgements_of(file: Path, transcripts: Sequence[Transcript], judge: str | None) -> list[Judgement | None]:
    """What a judge has said of each episode.

    Args:
        file: The episodes; the judgements lie beside them.
        transcripts: The same, read.
        judge: Whose judgements; None takes those of the only judge.

    Raises:
        ConfigError: If no judge is named and several have judged.
        RunError: If the judgements cannot be read.
    """
    return JudgementLog(judgements_beside(file)).of(transcripts, judge)


def measure(file: Path, transcripts: Sequence[Transcript], judgements: Sequence[Judgement | None]) -> Measured:
    """Score episodes.

    Args:
        file: The episodes.
        transcripts: The same, read.
        judgements: One for each; a score by a judge needs them all.
    """
    data = read_bytes(file)
    found = score(transcripts, verdicts=verdicts(transcripts, judgements))
    elapsed = [json.loads(line).get("elapsed") for line in data.splitlines() if line.strip()]
    seconds = max((each for each in elapsed if isinstance(each, int | float)), default=None)
    questions = sorted([each.question.id, each.question.text, list(each.question.answers)] for each in transcripts)
    return Measured(
        questions_hash=digest(questions)[:16],
        episodes=len(transcripts),
        episodes_hash=hashlib.sha256(data).hexdigest(),
        scores=_row_scores(found),
        cost=Cost(
            searches=round(found.searches_per_question, _DIGITS),
            calls=round(found.calls_per_question, _DIGITS),
            read_tokens=_rounded(found.read_tokens_per_question),
            written_tokens=_rounded(found.written_tokens_per_question),
            seconds=_rounded(None if seconds is None else seconds / len(transcripts)),
            money=_rounded(found.cost_per_question),
            search_money=_rounded(found.search_cost_per_question),
            model_money=_rounded(found.model_cost_per_question),
        ),
    )


def differences(stored: Measured, found: Measured) -> list[str]:
    """Where a row says something else than its episodes, in words; empty if nowhere."""
    if "search_money" not in stored.cost.model_fields_set:  # Rows of earlier versions count the searches alone.
        alone = {"money": found.cost.search_money, "search_money": None, "model_money": None}
        found = found.model_copy(update={"cost": found.cost.model_copy(update=alone)})
    pairs: list[tuple[Any, Any, str]] = [(stored.model_dump(mode="json"), found.model_dump(mode="json"), "")]
    told: list[str] = []
    while pairs:
        one, other, name = pairs.pop(0)
        if isinstance(one, dict) and isinstance(other, dict):
            pairs += [(one.get(key), other.get(key), f"{name}.{key}".lstrip(".")) for key in sorted({*one, *other})]
        elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
            pairs += [(left, right, f"{name}.{at}") for at, (left, right) in enumerate(zip(one, other, strict=True))]
        elif not _same(one, other):
            told.append(f"{name} is {_short(one)} in the row and {_short(other)} in the episodes")
    return told


def _row_scores(found: Scores) -> RowScores:
    judged = found.judged == found.n
    named = {name: key for name, key in _METRICS.items() if name != "acc_l" or judged}
    values = {name: round(getattr(found, key), _DIGITS) for name, key in named.items()}
    ends = {name: [round(end, _DIGITS) for end in found.intervals[key]] for name, key in named.items()}
    return RowScores.model_validate({"acc_l": None, **values, "intervals": ends})


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, _DIGITS)


def _same(one: object, other: object) -> bool:
    if isinstance(one, int | float) and isinstance(other, int | float):
        return abs(one - other) <= _TOLERANCE
    return one == other


def _short(value: object) -> str:
    return f"{value[:12]}…" if isinstance(value, str) and len(value) > 16 else f"{value}"

"""The scorer of everything: one reading of transcripts for training, evaluation and every method.

Invalid episodes are counted and left out: a search engine that was down says nothing
about the agent. All other episodes count, whatever ended them; one without an answer
scores 0.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from search_agents.evaluation.transcript_log import is_valid
from search_env.metrics import Normalisation
from search_env.metrics import score as score_answer
from search_env.types import StopReason, Transcript

__all__ = ["AnswerScores", "Scores", "score"]

_TRUNCATED = (StopReason.MAX_SEARCHES, StopReason.MAX_TURNS, StopReason.MAX_CHARS, StopReason.MAX_TOKENS)


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerScores:
    """Means of the answer metrics over some episodes, each in [0, 1]."""

    n: int
    """Number of valid episodes."""
    f1: float
    em: float
    cem: float
    """Cover match: every word of a gold answer is in the answer."""
    cem_contiguous: float
    """Cover match as a piece of text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores(AnswerScores):
    """Scores of a set of episodes; all are 0 if none is valid."""

    search_rate: float
    """Share of episodes that searched."""
    format_rate: float
    """Share of episodes whose format is right."""
    searches_per_question: float
    """Mean number of searches."""
    calls_per_question: float
    """Mean number of calls of the model; 0 if nobody counted them."""
    read_tokens_per_question: float
    """Mean number of tokens that the model took in, prompts and documents; what a session keeps counts once."""
    written_tokens_per_question: float
    """Mean number of tokens that the model sampled."""
    truncated: float
    """Share of episodes that a budget ended."""
    invalid: int
    """Number of episodes left out because the retriever failed."""
    by_kind: dict[str, AnswerScores]
    """By the set's own kind of question, where it has one."""
    by_hops: dict[str, AnswerScores]
    """By the number of documents an answer needs, where the set tells."""

    def to_dict(self) -> dict[str, Any]:
        """As plain values that JSON can hold."""
        return dataclasses.asdict(self)


def score(transcripts: Sequence[Transcript], normalisation: str = Normalisation.R1_SEARCHER) -> Scores:
    """Score finished episodes.

    Args:
        transcripts: One an episode.
        normalisation: How answers are compared: ``r1-searcher`` or ``flashrag``.

    Returns:
        Means over the valid episodes.

    Raises:
        ConfigError: If there is no such normalisation.
    """
    valid = [transcript for transcript in transcripts if is_valid(transcript)]
    calls = [[call for turn in each.turns for call in turn.calls if call.prompt_tokens] for each in valid]
    return Scores(
        **dataclasses.asdict(_answer_scores(valid, normalisation)),
        search_rate=_mean([bool(transcript.queries) for transcript in valid]),
        format_rate=_mean([transcript.format.ok for transcript in valid]),
        searches_per_question=_mean([len(transcript.queries) for transcript in valid]),
        calls_per_question=_mean([len(each) for each in calls]),
        read_tokens_per_question=_mean([sum(call.prompt_tokens for call in each) for each in calls]),
        written_tokens_per_question=_mean([sum(call.tokens for call in each) for each in calls]),
        truncated=_mean([transcript.stop_reason in _TRUNCATED for transcript in valid]),
        invalid=len(transcripts) - len(valid),
        by_kind=_by(lambda transcript: transcript.question.kind, valid, normalisation),
        by_hops=_by(lambda transcript: transcript.question.hops, valid, normalisation),
    )


def _by(
    key: Callable[[Transcript], Any], transcripts: Sequence[Transcript], normalisation: str
) -> dict[str, AnswerScores]:
    groups: dict[Any, list[Transcript]] = defaultdict(list)
    for transcript in transcripts:
        if key(transcript):
            groups[key(transcript)].append(transcript)
    return {str(name): _answer_scores(groups[name], normalisation) for name in sorted(groups)}


def _answer_scores(transcripts: Sequence[Transcript], normalisation: str) -> AnswerScores:
    found = [score_answer(item.answer, item.question.answers, normalisation) for item in transcripts]
    names = ("f1", "em", "cem", "cem_contiguous")
    return AnswerScores(n=len(found), **{name: _mean([each[name] for each in found]) for name in names})


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0

"""The scorer of everything: one reading of transcripts for training, evaluation and every method.

Invalid episodes are counted and left out: a search engine that was down says nothing
about the agent. All other episodes count, whatever ended them; one without an answer
scores 0. What nobody could measure is None, never 0.
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from search_agents.evaluation.resampling import interval
from search_agents.evaluation.searches import first_gold_turn, found_hops, repeated_queries
from search_agents.evaluation.transcript_log import is_valid
from search_env.metrics import Normalisation
from search_env.metrics import score as score_answer
from search_env.types import StopReason, Transcript

__all__ = ["NOT_TOLD", "AnswerScores", "Scores", "answer_metrics", "score"]

NOT_TOLD = "not told"
"""Stands in `Scores.stop_reasons` for episodes that do not say why they ended."""

_TRUNCATED = (StopReason.MAX_SEARCHES, StopReason.MAX_TURNS, StopReason.MAX_CHARS, StopReason.MAX_TOKENS)
_METRICS = ("f1", "em", "cem", "cem_contiguous")


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerScores:
    """Means of the answer metrics over some episodes, each in [0, 1]."""

    n: int
    """Number of valid episodes."""
    f1: float
    em: float
    cem: float
    """Cover match, ACC_R: every word of a gold answer is in the answer."""
    cem_contiguous: float
    """Cover match as a piece of text."""
    acc_l: float | None = None
    """Share of the judged episodes whose answer a language model holds to be right; None if none was judged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores(AnswerScores):
    """Scores of a set of episodes; all are 0 if none is valid (`n` is 0), and shown as a dash."""

    search_rate: float
    """Share of episodes that searched."""
    format_rate: float
    """Share of episodes whose format is right."""
    searches_per_question: float
    """Mean number of searches."""
    calls_per_question: float
    """Mean number of calls of the model; 0 if nobody counted them."""
    read_tokens_per_question: float | None
    """Mean number of tokens that the model took in, prompts and documents; what a session keeps counts once. None if a
    server did not tell."""
    written_tokens_per_question: float | None
    """Mean number of tokens that the model sampled; None if a server did not tell."""
    search_cost_per_question: float
    """Mean price of the searches, in the currency of the retriever's settings; 0 for a corpus of one's own."""
    model_cost_per_question: float | None
    """Mean price of the model's calls, in USD; 0 for a model that nobody charges for, None if prices or tokens of a
    server are not known."""
    cost_per_question: float | None
    """Both together; None if the model's is not known."""
    redundant_query_rate: float | None
    """Share of all queries that hold the same words as an earlier one of their episode; None without queries."""
    gold_recall: float | None
    """Mean share of a question's gold documents that some search returned; None if no question names any."""
    gold_recall_by_hop: dict[str, float]
    """The same for the first gold document of the questions, for the second …, in the set's order."""
    gold_hit_rate: float | None
    """Share of the episodes that found any gold document; None if no question names any."""
    first_hit_turn: float | None
    """Mean number of the turn, from 1, that found the first gold document, where one was found."""
    truncated: float
    """Share of episodes that a budget ended."""
    invalid: int
    """Number of episodes left out because the retriever failed."""
    stop_reasons: dict[str, int]
    """Number of episodes, the invalid ones too, by why they ended; see `search_env.types.StopReason`."""
    judged: int
    """Number of valid episodes that were judged."""
    intervals: dict[str, list[float]]
    """95 % bootstrap interval of each answer metric, lower and upper end; empty if no episode is valid."""
    by_normalisation: dict[str, AnswerScores]
    """The answer metrics in every normalisation of the field."""
    by_kind: dict[str, AnswerScores]
    """By the set's own kind of question, where it has one."""
    by_hops: dict[str, AnswerScores]
    """By the number of documents an answer needs, where the set tells."""

    def to_dict(self) -> dict[str, Any]:
        """As plain values that JSON can hold."""
        return dataclasses.asdict(self)


def score(
    transcripts: Sequence[Transcript],
    normalisation: str = Normalisation.R1_SEARCHER,
    *,
    verdicts: Sequence[bool | None] | None = None,
) -> Scores:
    """Score finished episodes.

    Args:
        transcripts: One an episode.
        normalisation: How answers are compared: ``r1-searcher`` or ``flashrag``.
        verdicts: A judge's verdict on each episode, None for one that was not judged; see
            `search_agents.evaluation.judge`.

    Returns:
        Means over the valid episodes.

    Raises:
        ConfigError: If there is no such normalisation.
        ValueError: If there is not one verdict an episode.
    """
    judged = zip(transcripts, [None] * len(transcripts) if verdicts is None else verdicts, strict=True)
    rows = [_Row(item, answer_metrics(item, normalisation, verdict)) for item, verdict in judged if is_valid(item)]
    valid = [row.transcript for row in rows]
    # One that took in nothing is a method's note; how many tokens a server took in may be None.
    calls = [call for each in valid for turn in each.turns for call in turn.calls if call.prompt_tokens != 0]
    search_cost = _mean(sum(spent.cost for spent in each.spending.values()) for each in valid)
    model_cost = _a_question([call.cost for call in calls], len(valid))
    return Scores(
        **dataclasses.asdict(_answer_scores(rows)),
        search_rate=_mean(bool(transcript.queries) for transcript in valid),
        format_rate=_mean(transcript.format.ok for transcript in valid),
        searches_per_question=_mean(len(transcript.queries) for transcript in valid),
        calls_per_question=len(calls) / max(1, len(valid)),
        read_tokens_per_question=_a_question([call.prompt_tokens for call in calls], len(valid)),
        written_tokens_per_question=_a_question([call.tokens for call in calls], len(valid)),
        search_cost_per_question=search_cost,
        model_cost_per_question=model_cost,
        cost_per_question=None if model_cost is None else search_cost + model_cost,
        **_search_scores(valid),
        truncated=_mean(transcript.stop_reason in _TRUNCATED for transcript in valid),
        invalid=len(transcripts) - len(valid),
        stop_reasons=dict(Counter(str(each.stop_reason or NOT_TOLD) for each in transcripts).most_common()),
        judged=sum("acc_l" in row.metrics for row in rows),
        intervals={name: interval(found) for name in (*_METRICS, "acc_l") if (found := _values(rows, name))},
        by_normalisation={
            str(each): _answer_scores([row.in_normalisation(each) for row in rows]) for each in Normalisation
        },
        by_kind=_by(lambda transcript: transcript.question.kind, rows),
        by_hops=_by(lambda transcript: transcript.question.hops, rows),
    )


def answer_metrics(
    transcript: Transcript, normalisation: str = Normalisation.R1_SEARCHER, verdict: bool | None = None
) -> dict[str, float]:
    """The metrics of one episode's answer: ``em``, ``f1``, ``cem``, ``cem_contiguous``, and ``acc_l`` if judged.

    Raises:
        ConfigError: If there is no such normalisation.
    """
    found = score_answer(transcript.answer, transcript.question.answers, normalisation)
    return found if verdict is None else {**found, "acc_l": float(verdict)}


class _Row(NamedTuple):
    """A valid episode and the metrics of its answer."""

    transcript: Transcript
    metrics: dict[str, float]

    def in_normalisation(self, normalisation: str) -> _Row:
        """The same episode in another normalisation; a verdict stays as it is."""
        return self._replace(metrics={**self.metrics, **answer_metrics(self.transcript, normalisation)})


def _search_scores(valid: Sequence[Transcript]) -> dict[str, Any]:
    """What the searches found, of what is known to be worth finding."""
    asked = [transcript for transcript in valid if transcript.question.gold_titles]
    found = [found_hops(transcript) for transcript in asked]
    first = [turn for transcript in asked if (turn := first_gold_turn(transcript)) is not None]
    hops = range(max(map(len, found), default=0))
    queries = sum(len(transcript.queries) for transcript in valid)
    repeated = sum(repeated_queries(transcript) for transcript in valid)
    return {
        "redundant_query_rate": repeated / queries if queries else None,
        "gold_recall": _mean(_mean(each) for each in found) if asked else None,
        "gold_recall_by_hop": {str(hop + 1): _mean(each[hop] for each in found if len(each) > hop) for hop in hops},
        "gold_hit_rate": len(first) / len(asked) if asked else None,
        "first_hit_turn": _mean(first) if first else None,
    }


def _by(key: Callable[[Transcript], Any], rows: Sequence[_Row]) -> dict[str, AnswerScores]:
    groups: dict[Any, list[_Row]] = defaultdict(list)
    for row in rows:
        if key(row.transcript):
            groups[key(row.transcript)].append(row)
    return {str(name): _answer_scores(groups[name]) for name in sorted(groups)}


def _answer_scores(rows: Sequence[_Row]) -> AnswerScores:
    judged = _values(rows, "acc_l")
    return AnswerScores(
        n=len(rows),
        **{name: _mean(_values(rows, name)) for name in _METRICS},
        acc_l=_mean(judged) if judged else None,
    )


def _values(rows: Sequence[_Row], name: str) -> list[float]:
    return [row.metrics[name] for row in rows if name in row.metrics]


def _a_question(values: Sequence[float | None], questions: int) -> float | None:
    """What was told call by call, a question; None if a call did not tell."""
    told = [value for value in values if value is not None]
    return sum(told) / max(1, questions) if len(told) == len(values) else None


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values) if values else 0.0

from __future__ import annotations

import dataclasses
import json

import pytest
from search_agents.evaluation.scorer import AnswerScores, score

from search_env.errors import ConfigError
from search_env.types import (
    Action,
    ActionKind,
    Call,
    Document,
    FormatVerdict,
    Hit,
    Question,
    Spending,
    StopReason,
    Transcript,
    Turn,
)


def played(
    answer: str | None,
    *,
    gold: str = "Oslo",
    kind: str = "bridge",
    hops: int | None = 2,
    searches: int = 0,
    stop: StopReason = StopReason.ANSWERED,
    well_formed: bool = True,
) -> Transcript:
    search = Turn(segment="s", action=Action(kind=ActionKind.SEARCH, text="q"), observation="docs")
    last = () if answer is None else (Turn(segment="a", action=Action(kind=ActionKind.ANSWER, text=answer)),)
    return Transcript(
        question=Question(id="q", text="?", answers=(gold,), kind=kind, hops=hops),
        turns=(search,) * searches + last,
        stop_reason=stop,
        format=FormatVerdict(problems=() if well_formed else ("broken",)),
    )


def test_means_are_taken_over_the_valid_episodes_only() -> None:
    scores = score(
        [
            played("Oslo", searches=2),
            played("Oslo town", searches=1, well_formed=False),
            played(None, stop=StopReason.MAX_TOKENS, well_formed=False),
            played("Bergen"),
            played(None, searches=1, stop=StopReason.RETRIEVER_UNAVAILABLE),
        ]
    )
    assert (scores.n, scores.invalid) == (4, 1)
    assert scores.em == 1 / 4
    assert scores.f1 == pytest.approx((1 + 2 / 3) / 4)
    assert scores.cem == scores.cem_contiguous == 2 / 4
    assert scores.search_rate == 2 / 4
    assert scores.searches_per_question == 3 / 4
    assert scores.format_rate == 2 / 4
    assert scores.truncated == 1 / 4


def test_scores_are_told_by_kind_and_by_hops() -> None:
    scores = score(
        [played("Oslo", kind="bridge", hops=2), played("x", kind="bridge", hops=10), played("Oslo", kind="", hops=None)]
    )
    one, none = (AnswerScores(n=1, f1=value, em=value, cem=value, cem_contiguous=value) for value in (1.0, 0.0))
    assert scores.by_kind == {"bridge": AnswerScores(n=2, f1=0.5, em=0.5, cem=0.5, cem_contiguous=0.5)}
    assert scores.by_hops == {"2": one, "10": none}
    assert list(scores.by_hops) == ["2", "10"]


@pytest.mark.parametrize(
    ("stop", "counted"),
    [
        (StopReason.MAX_SEARCHES, 1.0),
        (StopReason.MAX_TURNS, 1.0),
        (StopReason.MAX_CHARS, 1.0),
        (StopReason.MAX_TOKENS, 1.0),
        (StopReason.MALFORMED, 0.0),
        (StopReason.ANSWERED, 0.0),
    ],
)
def test_truncated_counts_spent_budgets(stop: StopReason, counted: float) -> None:
    assert score([played(None, stop=stop)]).truncated == counted


def test_nothing_valid_scores_nothing_and_divides_by_nothing() -> None:
    for transcripts in ([], [played(None, stop=StopReason.RETRIEVER_UNAVAILABLE)]):
        scores = score(transcripts)
        assert (scores.n, scores.f1, scores.search_rate, scores.by_kind) == (0, 0.0, 0.0, {})
        assert scores.invalid == len(transcripts)


def test_the_other_normalisation_is_used_when_asked_for() -> None:
    transcripts = [played("US", gold="U.S.")]
    assert (score(transcripts).em, score(transcripts, "flashrag").em) == (0.0, 1.0)
    with pytest.raises(ConfigError, match="unknown normalisation"):
        score(transcripts, "flash")


def test_scores_are_plain_values() -> None:
    found = score([played("Oslo")]).to_dict()
    assert json.loads(json.dumps(found)) == found
    assert {"n", "f1", "em", "cem", "search_rate", "format_rate", "searches_per_question", "invalid"} <= set(found)
    assert found["by_kind"]["bridge"]["f1"] == 1.0


def searched(*found: str, gold: tuple[str, ...] = ("Norway", "Oslo"), queries: tuple[str, ...] = ()) -> Transcript:
    """One search a title; an empty title finds nothing."""
    turns = [
        Turn(
            segment="s",
            action=Action(kind=ActionKind.SEARCH, text=query),
            hits=(Hit(document=Document(id=title, title=title, text="…"), score=1.0),) if title else (),
            observation="docs",
        )
        for title, query in zip(found, queries or map(str, range(len(found))), strict=True)
    ]
    question = Question(id="q", text="?", answers=("Oslo",), gold_titles=gold)
    return Transcript(question=question, turns=tuple(turns), stop_reason=StopReason.MAX_TURNS)


def test_gold_recall_is_told_hop_by_hop_and_the_first_hit_by_its_turn() -> None:
    scores = score(
        [
            searched("Bergen", " norway", "Oslo"),
            searched("Norway"),
            searched("Bergen", ""),
            searched("Norway", gold=("Norway",)),
            searched("Norway", gold=()),
        ]
    )
    assert scores.gold_recall == (1 + 1 / 2 + 0 + 1) / 4
    assert scores.gold_recall_by_hop == {"1": 3 / 4, "2": 1 / 3}
    assert scores.gold_hit_rate == 3 / 4
    assert scores.first_hit_turn == (2 + 1 + 1) / 3


def test_without_gold_documents_or_queries_nothing_is_made_up() -> None:
    scores = score([played("Oslo")])
    assert (scores.gold_recall, scores.gold_hit_rate, scores.first_hit_turn) == (None, None, None)
    assert (scores.gold_recall_by_hop, scores.redundant_query_rate, scores.acc_l) == ({}, None, None)


def test_a_query_of_the_same_words_is_redundant_within_its_episode_only() -> None:
    one = searched("", "", "", queries=("mayor of Oslo", "Oslo: mayor, of", "Oslo mayor"))
    assert score([one, searched("", queries=("mayor of Oslo",))]).redundant_query_rate == 1 / 4


def test_why_episodes_ended_is_counted_the_invalid_ones_too() -> None:
    scores = score(
        [
            played("Oslo"),
            played(None, stop=StopReason.MAX_TOKENS),
            played(None, stop=StopReason.MAX_TOKENS),
            played(None, stop=StopReason.RETRIEVER_UNAVAILABLE),
        ]
    )
    assert scores.stop_reasons == {"max_tokens": 2, "answered": 1, "retriever_unavailable": 1}
    assert (scores.n, scores.invalid) == (3, 1)


def test_a_verdict_counts_where_there_is_one_and_its_episode_is_valid() -> None:
    episodes = [played("Oslo"), played("x"), played("y"), played(None, stop=StopReason.RETRIEVER_UNAVAILABLE)]
    scores = score(episodes, verdicts=[True, False, None, True])
    assert (scores.acc_l, scores.judged, scores.n) == (1 / 2, 2, 3)
    assert scores.by_kind["bridge"].acc_l == scores.by_normalisation["flashrag"].acc_l == 1 / 2
    with pytest.raises(ValueError, match="shorter"):
        score(episodes, verdicts=[True])


def test_every_answer_metric_has_its_interval_and_both_normalisations() -> None:
    scores = score([played("US", gold="U.S."), played("Oslo"), played("Bergen")], verdicts=[True, True, False])
    assert set(scores.intervals) == {"f1", "em", "cem", "cem_contiguous", "acc_l"}
    low, high = scores.intervals["em"]
    assert 0.0 <= low <= scores.em <= high <= 1.0
    assert (scores.by_normalisation["r1-searcher"].em, scores.by_normalisation["flashrag"].em) == (1 / 3, 2 / 3)
    assert score([]).intervals == {}


def test_what_searches_cost_is_told_a_question() -> None:
    paid = dataclasses.replace(played("Oslo"), spending={"serper": Spending(calls=2, cost=0.5)})
    scores = score([paid, played("Oslo")])
    assert (scores.search_cost_per_question, scores.model_cost_per_question, scores.cost_per_question) == (
        0.25,
        0,
        0.25,
    )


def calling(*calls: Call) -> Transcript:
    episode = played("Oslo")
    return dataclasses.replace(episode, turns=tuple(dataclasses.replace(turn, calls=calls) for turn in episode.turns))


def test_what_the_model_costs_is_told_apart_from_the_searches_and_counted_with_them() -> None:
    calls = [Call(purpose="answer", prompt_tokens=30, tokens=5, cost=0.5), Call(purpose="sum", text="a note")]
    paid = dataclasses.replace(calling(*calls, *calls), spending={"serper": Spending(calls=2, cost=0.5)})
    scores = score([paid, calling(calls[0])])
    assert (scores.calls_per_question, scores.read_tokens_per_question, scores.written_tokens_per_question) == (
        1.5, 45, 7.5,
    )  # fmt: skip
    assert (scores.search_cost_per_question, scores.model_cost_per_question, scores.cost_per_question) == (
        0.25, 0.75, 1.0,
    )  # fmt: skip


def test_a_call_whose_tokens_nobody_told_is_counted_and_its_tokens_and_price_are_unknown() -> None:
    told = Call(purpose="answer", prompt_tokens=30, tokens=5)
    scores = score([calling(told), calling(told, Call(purpose="answer", prompt_tokens=None, tokens=None, cost=None))])
    assert scores.calls_per_question == 1.5
    assert (scores.read_tokens_per_question, scores.written_tokens_per_question) == (None, None)
    assert (scores.model_cost_per_question, scores.cost_per_question) == (None, None)
    assert scores.search_cost_per_question == 0

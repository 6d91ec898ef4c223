from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from pydantic import ValidationError
from search_agents.config.sections import KeepSection
from search_agents.learning.rejection import choose, is_right
from search_agents.rollout import Episode, SegmentKind, TokenSegment

from search_env.types import FormatVerdict, Question, StopReason, Transcript


def make_episode(*, length: int = 3, valid: bool = True, **metrics: float) -> Episode:
    return Episode(
        question_id="q",
        group=0,
        segments=(TokenSegment(SegmentKind.SAMPLED, tuple(range(length)), (0.0,) * length, ""),),
        transcript=Transcript(
            question=Question(id="q", text="?", answers=("a",)),
            turns=(),
            stop_reason=StopReason.ANSWERED,
            format=FormatVerdict(),
        ),
        reward=0.0,
        reward_parts={},
        metrics={"em": 1.0, "f1": 1.0, "cem": 1.0, "searches": 1.0, "format_ok": 1.0} | metrics,
        stop_reason=StopReason.ANSWERED,
        valid=valid,
    )


@pytest.mark.parametrize(
    ("rule", "episode", "right"),
    [
        ({}, {}, True),
        ({}, {"em": 0.0}, False),
        ({}, {"em": 0.0, "f1": 1.0}, False),
        ({}, {"format_ok": 0.0}, False),
        ({"format": False}, {"format_ok": 0.0}, True),
        ({}, {"searches": 0.0}, True),
        ({"min_searches": 1}, {"searches": 0.0}, False),
        ({"min_searches": 2}, {"searches": 1.0}, False),
        ({"min_searches": 2}, {"searches": 2.0}, True),
        ({"metric": "f1", "at_least": 0.8}, {"em": 0.0, "f1": 0.8}, True),
        ({"metric": "f1", "at_least": 0.8}, {"em": 0.0, "f1": 0.79}, False),
        ({"metric": "cem"}, {"em": 0.0, "cem": 1.0}, True),
        ({}, {"valid": False}, False),
    ],
)
def test_an_episode_is_right_if_answer_format_and_searches_are(
    rule: dict[str, Any], episode: dict[str, Any], right: bool
) -> None:
    assert is_right(make_episode(**episode), KeepSection(**rule)) is right


def test_all_that_is_right_is_kept_in_order_unless_a_number_is_given() -> None:
    episodes = [make_episode(length=length, em=em) for length, em in ((5, 1.0), (1, 0.0), (3, 1.0), (4, 1.0))]
    assert choose(episodes, KeepSection(), seed=0) == [episodes[0], episodes[2], episodes[3]]
    two = KeepSection(per_question=2, prefer="shortest")
    assert choose(episodes, two, seed=0) == [episodes[2], episodes[3]]
    assert choose(episodes, KeepSection(per_question=3, prefer="shortest"), seed=0) == choose(
        episodes, KeepSection(), seed=0
    )
    assert choose([dataclasses.replace(episodes[1])], KeepSection(), seed=0) == []


def test_a_draw_takes_each_right_one_with_some_seed_and_the_same_one_with_the_same_seed() -> None:
    episodes = [make_episode(length=length) for length in (1, 2, 3)]
    rule = KeepSection(per_question=1)
    drawn = [choose(episodes, rule, seed=seed) for seed in range(20)]
    assert {len(each) for each in drawn} == {1}
    assert {len(each[0].token_ids) for each in drawn} == {1, 2, 3}
    assert drawn == [choose(episodes, rule, seed=seed) for seed in range(20)]


@pytest.mark.parametrize("wrong", [{"at_least": 0}, {"at_least": 1.1}, {"metric": "recall"}, {"per_question": 0}])
def test_a_rule_without_a_meaning_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        KeepSection(**wrong)

from __future__ import annotations

import json

import numpy as np
import pytest
from search_agents.rollout import Episode, SegmentKind, TokenSegment

from search_env.types import (
    Action,
    ActionKind,
    Document,
    FormatVerdict,
    Hit,
    Question,
    StopReason,
    Transcript,
    Turn,
)

TRANSCRIPT = Transcript(
    question=Question(id="q", text="Who \ud800\u2028?", answers=("A", "B"), hops=2, gold_titles=("T", "U")),
    turns=(
        Turn(
            segment="<begin_of_query> é <end_of_query>",
            action=Action(kind=ActionKind.SEARCH, text="é"),
            hits=(Hit(document=Document(id="d", title="T", text="漢"), score=1.5),),
            observation="\n(1) T: 漢\n",
        ),
        Turn(segment="eh", action=Action(kind=ActionKind.MALFORMED, problem="it ends in neither")),
    ),
    stop_reason=StopReason.MALFORMED,
    format=FormatVerdict(problems=("it ends in neither",)),
)


@pytest.fixture
def episode() -> Episode:
    return Episode(
        question_id="q",
        group=3,
        segments=(
            TokenSegment(SegmentKind.PROMPT, (1, 2, 3), (), "Who?"),
            TokenSegment(SegmentKind.SAMPLED, (4, 5), (-0.1, float(np.float32(-1 / 3))), "é"),
            TokenSegment(SegmentKind.OBSERVATION, (6,), (), "漢"),
            TokenSegment(SegmentKind.SAMPLED, (7,), (-2.5,), "eh"),
        ),
        transcript=TRANSCRIPT,
        reward=-2.0,
        reward_parts={"f1": 0.0, "format": -2.0},
        metrics={"em": 0.0, "searches": 1.0},
        stop_reason=StopReason.MALFORMED,
        valid=True,
    )


def test_ids_mask_and_logprobs_are_the_concatenation_of_the_segments(episode: Episode) -> None:
    assert episode.token_ids.tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert episode.action_mask.tolist() == [False, False, False, True, True, False, True]
    np.testing.assert_array_equal(episode.logprobs, np.float32([0, 0, 0, -0.1, -1 / 3, 0, -2.5]))
    assert (episode.token_ids.dtype, episode.action_mask.dtype, episode.logprobs.dtype) == (
        np.int64,
        np.bool_,
        np.float32,
    )


def test_the_arrays_are_made_once(episode: Episode) -> None:
    assert episode.token_ids is episode.token_ids
    assert episode.action_mask is episode.action_mask
    assert episode.logprobs is episode.logprobs


def test_an_episode_survives_json_on_one_line(episode: Episode) -> None:
    line = episode.to_json()
    assert line.encode("utf-8") and len(line.splitlines()) == 1
    assert json.loads(line)["transcript"]["turns"][0]["hits"][0]["document"]["text"] == "漢"
    again = Episode.from_json(line)
    assert again == episode
    assert isinstance(again.segments[1].kind, SegmentKind) and isinstance(again.stop_reason, StopReason)
    np.testing.assert_array_equal(again.logprobs, episode.logprobs)


@pytest.mark.parametrize(
    ("kind", "logprobs"),
    [(SegmentKind.SAMPLED, ()), (SegmentKind.OBSERVATION, (-1.0, -1.0)), (SegmentKind.PROMPT, (0.0,))],
)
def test_log_probs_belong_to_sampled_tokens_and_to_no_others(kind: SegmentKind, logprobs: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="of 2 tokens has"):
        TokenSegment(kind, (1, 2), logprobs, "")

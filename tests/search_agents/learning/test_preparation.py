from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from search_agents.learning.preparation import prepare_rows
from search_agents.rollout import Episode, SegmentKind, TokenSegment

from search_env.types import FormatVerdict, Question, StopReason, Transcript

Prepare = Callable[..., tuple[list[Any], dict[str, float]]]


def episode(reward: float, group: int = 0, stop: StopReason = StopReason.ANSWERED) -> Episode:
    """Two tokens of prompt, three sampled with log-prob -1, two of a document, two sampled."""
    kinds = [SegmentKind.PROMPT, SegmentKind.SAMPLED, SegmentKind.OBSERVATION, SegmentKind.SAMPLED]
    segments = tuple(
        TokenSegment(kind, (7,) * number, (-1.0,) * number if kind is SegmentKind.SAMPLED else (), "")
        for kind, number in zip(kinds, (2, 3, 2, 2), strict=True)
    )
    question = Question(id="q", text="?", answers=("a",))
    return Episode(
        question_id="q",
        group=group,
        segments=segments,
        transcript=Transcript(question=question, turns=(), stop_reason=stop, format=FormatVerdict()),
        reward=reward,
        reward_parts={},
        metrics={},
        stop_reason=stop,
        valid=True,
    )


class Learners:
    """Finds every sampled token at fixed log-probs."""

    def __init__(self, policy: float, reference: float) -> None:
        self.policy, self.reference = policy, reference

    def compute_logprobs(self, rows: Any, *, reference: bool = False) -> list[np.ndarray[Any, Any]]:
        value = self.reference if reference else self.policy
        return [np.where(row.action_mask, np.float32(value), np.float32(0)) for row in rows]


@pytest.fixture
def prepare(make_config: Callable[..., Any]) -> Prepare:
    def run(episodes: list[Episode], **training: Any) -> tuple[list[Any], dict[str, float]]:
        logged: dict[str, float] = {}
        learners: Any = Learners(policy=-0.5, reference=-1.25)
        config = make_config(advantage="dr-grpo", **training)
        return prepare_rows(episodes, config, learners, logged.__setitem__), logged

    return run


def test_an_overlong_episode_trains_nothing_but_counts_for_its_group(prepare: Prepare) -> None:
    episodes = [episode(1.0), episode(0.0), episode(0.0, stop=StopReason.MAX_TOKENS)]
    rows, _ = prepare(episodes, mask_overlong=True)
    assert len(rows) == 2
    assert rows[0].advantages[2] == pytest.approx(2 / 3) and rows[1].advantages[2] == pytest.approx(-1 / 3)
    assert len(prepare(episodes)[0]) == 3


def test_a_step_of_overlong_episodes_trains_nothing(prepare: Prepare) -> None:
    rows, _ = prepare([episode(1.0, stop=StopReason.MAX_TURNS)], mask_overlong=True, mismatch="masked", kl_coef=0.1)
    assert rows == []


def test_kl_in_the_reward_is_summed_to_go_and_in_the_loss_is_left_to_the_loss(prepare: Prepare) -> None:
    episodes = [episode(1.0), episode(1.0)]
    (inside, _), logged = prepare(episodes, kl_coef=0.1, kl_in="reward")
    np.testing.assert_allclose(inside.advantages, -0.025 * np.array([0, 0, 5, 4, 3, 0, 0, 2, 1]), atol=1e-7)
    assert inside.reference_logprobs is None and logged == {"reference_kl": pytest.approx(0.25)}
    (outside, _), _ = prepare(episodes, kl_coef=0.1, kl_in="loss", kl_estimator="k3")
    assert not outside.advantages.any()
    assert outside.reference_logprobs.tolist() == [0, 0, -1.25, -1.25, -1.25, 0, 0, -1.25, -1.25]


def test_a_correction_takes_the_learners_log_probs_and_weighs_the_advantages(prepare: Prepare) -> None:
    episodes = [episode(1.0), episode(0.0)]
    for mismatch, cap, weight in [("truncated", 1.5, 1.5), ("truncated", 2.0, np.exp(0.5)), ("masked", 1.5, 0.0)]:
        (row, _), logged = prepare(episodes, mismatch=mismatch, mismatch_cap=cap)
        assert row.logprobs[row.action_mask].tolist() == [-0.5] * 5
        np.testing.assert_allclose(row.advantages[row.action_mask], 0.5 * weight, rtol=1e-6)
        assert logged == {"mismatch_kl": -0.5, "mismatch_fraction": float(cap < 1.6)}
    (row, _), logged = prepare(episodes)
    assert row.logprobs[row.action_mask].tolist() == [-1.0] * 5 and logged == {}


def test_by_default_a_document_is_no_part_of_what_is_trained(prepare: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Learners, "compute_logprobs", lambda *rest, **more: pytest.fail("a needless forward pass"))
    episodes = [episode(1.0), episode(0.0)]
    for settings in ({}, {"mask_documents": True}):
        (row, _), _ = prepare(episodes, **settings)
        assert row.action_mask.tolist() == [False] * 2 + [True] * 3 + [False] * 2 + [True] * 2
        assert row.logprobs.tolist() == [0, 0, -1, -1, -1, 0, 0, -1, -1]
        assert row.advantages.tolist() == [0, 0, 0.5, 0.5, 0.5, 0, 0, 0.5, 0.5]


def test_without_the_mask_a_document_counts_as_sampled_at_the_learners_log_probs(prepare: Prepare) -> None:
    (row, _), _ = prepare([episode(1.0), episode(0.0)], mask_documents=False)
    assert row.action_mask.tolist() == [False] * 2 + [True] * 7, "the prompt is never trained on"
    assert row.logprobs.tolist() == [0, 0, -1, -1, -1, -0.5, -0.5, -1, -1]
    assert row.advantages.tolist() == [0, 0] + [0.5] * 7


def test_without_the_mask_corrections_and_kl_see_documents_as_sampled(prepare: Prepare) -> None:
    episodes = [episode(1.0), episode(0.0)]
    (row, _), _ = prepare(episodes, mask_documents=False, mismatch="truncated", mismatch_cap=1.5)
    assert row.logprobs[row.action_mask].tolist() == [-0.5] * 7
    np.testing.assert_allclose(row.advantages, [0, 0, *[0.75] * 3, 0.5, 0.5, 0.75, 0.75])  # no engine drew a document
    (row, _), logged = prepare(episodes, mask_documents=False, kl_coef=0.1, kl_in="loss", kl_estimator="k3")
    assert row.reference_logprobs[row.action_mask].tolist() == [-1.25] * 7
    assert logged == {"reference_kl": pytest.approx((5 * 0.25 + 2 * 0.75) / 7)}


def test_without_the_mask_an_overlong_episode_still_trains_nothing(prepare: Prepare) -> None:
    episodes = [episode(1.0), episode(0.0, stop=StopReason.MAX_TOKENS)]
    rows, _ = prepare(episodes, mask_documents=False, mask_overlong=True)
    assert len(rows) == 1 and rows[0].action_mask.sum() == 7
    assert prepare(episodes[1:], mask_documents=False, mask_overlong=True)[0] == []

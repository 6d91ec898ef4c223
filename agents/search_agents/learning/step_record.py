"""What a training step leaves in the run folder: its line of metrics, and some of its episodes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from search_agents.rollout import Episode

__all__ = ["episode_records", "metrics_row"]


def metrics_row(result: Mapping[str, Any], *, step: int) -> dict[str, Any]:
    """The line of a step in metrics.jsonl: what RLlib reports, under short names.

    Args:
        result: Of `ReinforcePP.train`.
        step: The number of the step, from 1.

    Returns:
        The line; None stands for what is not finite.
    """
    episodes = result.get("env_runners", {})  # none are played in supervised training
    learner, timers = result["learners"]["default_policy"], result["timers"]
    measured = {
        **{name: episodes[key] for name, key in _EPISODE_METRICS.items() if key in episodes},
        **{f"reward_{name}": value for name, value in episodes.get("reward_parts", {}).items()},
        **{name: learner[name] for name in _LEARNER_METRICS if name in learner},
        **{f"{name}_seconds": timers[name] for name in ("sample", "learn") if name in timers},
    }
    plain = {name: float(value) for name, value in measured.items()}
    finite = {name: value if math.isfinite(value) else None for name, value in plain.items()}
    return {"step": step, "stage": result["stage"], **finite}


_EPISODE_METRICS = {
    "reward": "episode_return_mean",
    "f1": "f1",
    "em": "em",
    "cem": "cem",
    "search_rate": "search_rate",
    "format_rate": "format_rate",
    "searches_per_question": "searches_per_question",
    "response_tokens": "response_tokens",
    "episode_tokens": "episode_tokens",
    "truncated": "truncated",
    "invalid": "invalid",
    "signal_rate": "signal_rate",
    "replaced_runners": "replaced_runners",
}
_LEARNER_METRICS = (
    "loss",
    "kl",
    "staleness",
    "reference_kl",
    "mismatch_kl",
    "mismatch_fraction",
    "entropy",
    "clip_fraction",
    "grad_norm",
    "skipped_steps",
    "trained_tokens",
)


def episode_records(episodes: Sequence[Episode], groups: int) -> Iterator[dict[str, Any]]:
    """The best and the worst episode of each of the first groups, as plain values.

    Args:
        episodes: Of one step.
        groups: How many groups.
    """
    numbers = list(dict.fromkeys(episode.group for episode in episodes))[:groups]
    for number in numbers:
        group = [episode for episode in episodes if episode.group == number and episode.valid]
        best, worst = (choose(group, key=lambda episode: episode.reward, default=None) for choose in (max, min))
        for rank, episode in (("best", best), ("worst", worst)):
            if episode is not None and (rank == "best" or episode is not best):
                yield _episode_record(episode, rank)


def _episode_record(episode: Episode, rank: str) -> dict[str, Any]:
    question = episode.transcript.question
    return {
        "group": episode.group,
        "rank": rank,
        "question_id": question.id,
        "question": question.text,
        "answers": list(question.answers),
        "answer": episode.transcript.answer,
        "queries": list(episode.transcript.queries),
        "reward": episode.reward,
        "reward_parts": episode.reward_parts,
        "metrics": episode.metrics,
        "stop_reason": str(episode.stop_reason),
        "format_problems": list(episode.transcript.format.problems),
        "segments": [
            {
                "kind": str(segment.kind),
                "text": segment.text,
                "token_ids": list(segment.token_ids),
                "logprobs": list(segment.stored_logprobs),
            }
            for segment in episode.segments
        ],
        "transcript": asdict(episode.transcript),
    }

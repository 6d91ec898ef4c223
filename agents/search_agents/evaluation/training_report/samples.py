"""The best and the worst episode of each step, of those that the run has kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from search_agents.evaluation.saved import FORMATS
from search_agents.evaluation.viewer.payload import outcome_of
from search_agents.evaluation.viewer.sources import Played, read_played
from search_env import metrics

__all__ = ["read_samples"]

_MOST_STEPS = 200
"""Of each run: a long one samples more text than a page can hold."""
_LONGEST_OBSERVATION = 1_500
_LONGEST_SEGMENT = 20_000


def read_samples(folder: Path) -> list[dict[str, Any]]:
    """The samples of a run, step by step; of very many steps, some that are spread evenly.

    Args:
        folder: The run folder; `search_agents.learning.run_folder` tells what episodes it keeps.

    Returns:
        For each step its number and the ``episodes``: first the one with the highest reward, then, if there is another,
        the one with the lowest. Invalid ones have no reward and are left out.

    Raises:
        DatasetError: If a file is damaged; names file and line.
    """
    files = sorted(folder.glob("episodes/step_*.jsonl"))
    found = []
    for file in _spread(files):
        played = [episode for episode in read_played(file) if episode.valid and episode.reward is not None]
        if played:
            ordered = sorted(played, key=lambda episode: episode.reward or 0.0, reverse=True)
            shown = [ordered[0], *ordered[1:][-1:]]
            found.append(
                {"step": int(file.stem.removeprefix("step_")), "episodes": [_episode(episode) for episode in shown]}
            )
    return found


def _spread(files: Sequence[Path]) -> list[Path]:
    """At most as many as a page can hold, the first and the last among them."""
    if len(files) <= _MOST_STEPS:
        return list(files)
    return [files[place * (len(files) - 1) // (_MOST_STEPS - 1)] for place in range(_MOST_STEPS)]


def _episode(played: Played) -> dict[str, Any]:
    transcript, question = played.transcript, played.transcript.question
    scores = metrics.score(transcript.answer, question.answers, FORMATS["ours"].normalisation)
    return {
        "question": question.text,
        "golds": list(question.answers),
        "answer": transcript.answer,
        "outcome": outcome_of(played, scores),
        "f1": scores["f1"],
        "reward": _finite(played.reward),
        "reward_parts": {name: _finite(part) for name, part in played.reward_parts.items()},
        "searches": len(transcript.queries),
        "stop_reason": transcript.stop_reason,
        "problems": list(transcript.format.problems),
        "turns": [
            {
                "segment": _cut(turn.segment, _LONGEST_SEGMENT),
                "observation": _cut(turn.observation, _LONGEST_OBSERVATION),
            }
            for turn in transcript.turns
        ],
    }


def _finite(value: float | None) -> float | None:
    """A number that JSON knows; None for the others."""
    return round(value, 4) if value is not None and math.isfinite(value) else None


def _cut(text: str, longest: int) -> str:
    left = len(text) - longest
    return text if left <= 0 else f"{text[:longest]}\n… {left:,} more characters"

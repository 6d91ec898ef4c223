"""The scores of an evaluation while it runs: on the bar at every answer, as a line now and then."""

from __future__ import annotations

import time

from search_agents.evaluation.transcript_log import is_valid
from search_agents.learning.progress import Progress
from search_env import metrics
from search_env.types import Transcript

__all__ = ["RunningScores"]

_SECONDS = 10.0
"""Between two lines at least; the last answer always has one."""


class RunningScores:
    """Means over the valid episodes so far.

    Args:
        progress: Shows them.
        total: Number of questions.
    """

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total = progress, total
        self._done = self._invalid = 0
        self._f1 = self._em = 0.0
        self._told = time.monotonic()

    def add(self, transcript: Transcript) -> None:
        """Count an episode that has ended, and show what is known now."""
        self._done += 1
        if is_valid(transcript):
            found = metrics.score(transcript.answer, transcript.question.answers)
            self._f1 += found["f1"]
            self._em += found["em"]
        else:
            self._invalid += 1
        self._progress.advance(self._done, str(self))
        if self._done == self._total or time.monotonic() - self._told >= _SECONDS:
            self._told = time.monotonic()
            self._progress.count(self._done, str(self))

    def __str__(self) -> str:
        valid = self._done - self._invalid
        means = [f"{total / valid:.3f}" if valid else "-" for total in (self._f1, self._em)]
        return f"{self._done}/{self._total} questions  F1 {means[0]}  EM {means[1]}  invalid {self._invalid}"

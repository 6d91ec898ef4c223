"""Scores of a file of saved episodes: what ``search-env score`` says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from search_agents.evaluation.figures import COST, SEARCHING, figures
from search_agents.evaluation.judge import Judgement, judges_of, verdicts
from search_agents.evaluation.report import table
from search_agents.evaluation.saved import FORMATS, SavedEpisode
from search_agents.evaluation.scorer import AnswerScores, Scores, score

__all__ = ["Rescored", "rescore"]

HEADLINES = {"em": "em", "acc_r": "cem", "cem": "cem_contiguous", "f1": "f1", "acc_l": "acc_l"}
"""How the field calls its metrics, and what they are called in `Scores`."""

_LABELS = {"em": "EM", "acc_r": "ACC_R (words)", "cem": "CEM (piece)", "f1": "F1", "acc_l": "ACC_L (judge)"}


@dataclass(frozen=True, kw_only=True)
class Rescored:
    """Scores of a file and what they rest on."""

    file: Path
    format: str
    normalisation: str
    scores: Scores
    judges: Mapping[str, int]
    """Number of judgements by model."""
    unclear: int
    """Judgements that say neither true nor false; they count as wrong."""
    seconds_per_question: float | None = None
    """Wall-clock time of the evaluation over its questions; None if the episodes do not tell."""

    def to_dict(self) -> dict[str, Any]:
        """``em``, ``acc_r``, ``cem``, ``f1`` and ``acc_l`` in percent, ``n``, and what else is known; see `Scores`.

        Those in percent are None if no episode is valid.
        """
        scores, kind = self.scores, FORMATS[self.format]
        measured = {**scores.to_dict(), "seconds_per_question": self.seconds_per_question}
        told = (*(SEARCHING if kind.tells_searches else ()), *(COST if kind.tells_cost else ()))
        return {
            **_percent(scores),
            "n": scores.n,
            "invalid": scores.invalid,
            "stop_reasons": scores.stop_reasons,
            "format": self.format,
            "normalisation": self.normalisation,
            "intervals": {
                name: [round(100 * end, 1) for end in scores.intervals[key]]
                for name, key in HEADLINES.items()
                if key in scores.intervals
            },
            "by_normalisation": {name: _percent(each) for name, each in scores.by_normalisation.items()},
            "judges": dict(self.judges),
            "judged": scores.judged,
            "unclear_judgements": self.unclear,
            "by_hops": {name: {**_percent(each), "n": each.n} for name, each in scores.by_hops.items()},
            **{key: measured[key] for key in told},
        }

    def report(self) -> str:
        """The same for people."""
        found = self.to_dict()
        other = next(name for name in found["by_normalisation"] if name != self.normalisation)
        rows = [
            [
                label,
                _shown(found[name]),
                _ends(found["intervals"].get(name)),
                _shown(found["by_normalisation"][other][name]),
            ]
            for name, label in _LABELS.items()
        ]
        lines = [
            f"{self.file}: {self.scores.n} episodes of the format {self.format}",
            table(["metric", f"% ({self.normalisation})", "95 % interval", f"% ({other})"], rows),
            figures({**found, "by_hops": self.scores.to_dict()["by_hops"]}),
        ]
        if self.scores.invalid:
            lines.append(f"left out, for their search failed for good: {self.scores.invalid}")
        lines.append(self._judged())
        return "\n\n".join(filter(None, lines))

    def _judged(self) -> str:
        if not self.judges:
            return "ACC_L: nobody has judged; --judge MODEL asks a model."
        by = ", ".join(f"{name} ({count})" for name, count in self.judges.items())
        unclear = f"; {self.unclear} replies say neither true nor false and count as wrong" if self.unclear else ""
        return f"ACC_L: {self.scores.judged} of {self.scores.n} judged by {by}{unclear}"


def rescore(
    file: Path,
    format_: str,
    episodes: Sequence[SavedEpisode],
    judgements: Sequence[Judgement | None],
    *,
    normalisation: str | None = None,
) -> Rescored:
    """Score saved episodes.

    Args:
        file: Where they come from.
        format_: See `search_agents.evaluation.saved`.
        episodes: The episodes.
        judgements: One for each; None where nobody was asked.
        normalisation: How answers are compared; None takes that of the format's own scores.

    Raises:
        ConfigError: If there is no such normalisation.
    """
    chosen = normalisation or FORMATS[format_].normalisation
    transcripts = [episode.transcript for episode in episodes]
    elapsed = max((each.elapsed for each in episodes if each.elapsed is not None), default=None)
    return Rescored(
        file=file,
        format=format_,
        normalisation=str(chosen),
        scores=score(transcripts, chosen, verdicts=verdicts(transcripts, judgements)),
        judges=judges_of(judgements),
        unclear=sum(not each.clear for each in judgements if each),
        seconds_per_question=None if elapsed is None else elapsed / len(episodes),
    )


def _percent(scores: AnswerScores) -> dict[str, float | None]:
    found = asdict(scores)
    told = {name: found[key] if scores.n else None for name, key in HEADLINES.items()}
    return {name: None if value is None else round(100 * value, 1) for name, value in told.items()}


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _ends(ends: Sequence[float] | None) -> str:
    return "-" if ends is None else f"{ends[0]:.1f} to {ends[1]:.1f}"

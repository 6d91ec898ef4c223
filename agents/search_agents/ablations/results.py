"""The figures of an ablation: each arm over its seeds, arms against each other, and what becomes of the finding.

Everything is read from the evaluations that the trainings have left, at their first
temperature. Two arms are compared question by question: of each question the mean over
the seeds that both arms have, then `paired_difference`. Its interval is over questions
and knows nothing of other seeds, so the difference by each seed alone stands beside it,
and a finding holds only where both say so.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from search_agents.config import AblationConfig
from search_agents.config.ablation import METRICS, ClaimSection
from search_agents.evaluation.resampling import Difference, paired_difference
from search_agents.evaluation.scorer import answer_metrics
from search_agents.evaluation.transcript_log import is_valid
from search_agents.learning.run_folder import RunFolder
from search_agents.rollout.episode import read_transcript
from search_env.errors import ConfigError, RunError
from search_env.types import Transcript

__all__ = ["ArmRuns", "ablation_results", "read_arms", "verdict"]

_EVALUATION = "after"

Figures = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class ArmRuns:
    """The evaluations of an arm."""

    seeds: Mapping[int, Mapping[str, Figures]]
    """By seed and id of the question, the metrics; without invalid episodes."""
    questions: frozenset[str]
    """Ids of all that were asked."""
    groups: Mapping[str, Mapping[str, str]]
    """``kind`` and ``hops`` of each question, where the set tells."""


def ablation_results(config: AblationConfig, folders: Mapping[tuple[str, int], Path]) -> dict[str, Any]:
    """Put together the content of ablation.json.

    Args:
        config: The ablation.
        folders: The folders of finished trainings, by arm and seed.

    Raises:
        ConfigError: If the trainings were not evaluated on the same questions.
        RunError: If a file of theirs is missing or damaged.
    """
    arms = read_arms(folders)
    names = [arm.name for arm in config.arms]
    present = [name for name in names if name in arms]
    pairs = [(a, b) for a, b in itertools.combinations(present, 2) if _shared_seeds(arms[a], arms[b])]
    return {
        "ablation": config.model_dump(mode="json"),
        "finished": len(folders),
        "planned": len(names) * len(config.seeds),
        "questions": max((len(arm.questions) for arm in arms.values()), default=0),
        "arms": {name: _arm(arms[name]) for name in present},
        "comparisons": [{"metric": metric, **_comparison(arms, a, b, metric)} for a, b in pairs for metric in METRICS],
        "claims": [_claim(arms, claim) for claim in config.claims],
    }


def read_arms(folders: Mapping[tuple[str, int], Path]) -> dict[str, ArmRuns]:
    """Read what the trained agents did on the held-out questions.

    Raises:
        ConfigError: If they were not asked the same questions.
        RunError: If a file is missing or damaged.
    """
    read = {key: _transcripts(folder) for key, folder in folders.items()}
    asked = {key: frozenset(each.question.id for each in found) for key, found in read.items()}
    first = next(iter(folders), None)
    for key, ids in asked.items():
        if first is not None and ids != asked[first]:
            raise ConfigError(
                f"{folders[key]} and {folders[first]} were evaluated on different questions, so their arms cannot be "
                "compared. Leave evaluation.split, evaluation.questions and env.data out of what makes an arm."
            )
    arms = {}
    for name in dict.fromkeys(arm for arm, _ in folders):
        seeds = {seed: read[arm, seed] for arm, seed in folders if arm == name}
        every = [each for found in seeds.values() for each in found]
        arms[name] = ArmRuns(
            seeds={
                seed: {each.question.id: _figures(each) for each in found if is_valid(each)}
                for seed, found in seeds.items()
            },
            questions=frozenset(each.question.id for each in every),
            groups={
                "kind": {each.question.id: each.question.kind for each in every if each.question.kind},
                "hops": {each.question.id: str(each.question.hops) for each in every if each.question.hops},
            },
        )
    return arms


def verdict(difference: Difference, by_seed: Sequence[float]) -> str:
    """What a difference, higher less lower by the paper, says of the paper's claim.

    Returns:
        ``holds`` if interval and every seed are above 0, ``reversed`` if all are below, else ``open``.
    """
    if difference.low > 0 and min(by_seed) > 0:
        return "holds"
    return "reversed" if difference.high < 0 and max(by_seed) < 0 else "open"


def _transcripts(folder: Path) -> list[Transcript]:
    again = "Delete the folder of that training and give the same command again."
    file = folder / "evaluations" / f"{_EVALUATION}.jsonl"
    try:
        found = [read_transcript(row) for row in RunFolder.open(folder).transcripts(_EVALUATION)]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{file}: a line is no transcript: {error!r}. {again}") from error
    if not found:
        raise RunError(f"{file} holds no transcript. {again}")
    return found


def _figures(transcript: Transcript) -> dict[str, float]:
    found = answer_metrics(transcript)
    return {
        **{metric: found[metric] for metric in ("em", "cem", "f1")},
        "searches": float(len(transcript.queries)),
        "response_tokens": float(sum(call.tokens or 0 for turn in transcript.turns for call in turn.calls)),
        "answer_words": float(len((transcript.answer or "").split())),
    }


def _arm(arm: ArmRuns) -> dict[str, Any]:
    """The figures of an arm: by seed, over the seeds, and F1 by group of questions."""
    runs = {
        seed: {metric: fmean(each[metric] for each in found.values()) for metric in METRICS}
        for seed, found in arm.seeds.items()
        if found
    }
    groups = {
        group: {
            key: _over([_group_f1(found, of_question, key) for found in arm.seeds.values()])
            for key in sorted(set(of_question.values()))
        }
        for group, of_question in arm.groups.items()
    }
    return {
        "seeds": {str(seed): figures for seed, figures in runs.items()},
        "invalid": sum(len(arm.questions) - len(found) for found in arm.seeds.values()),
        "metrics": {metric: _over([figures[metric] for figures in runs.values()]) for metric in METRICS},
        **{f"f1_by_{group}": found for group, found in groups.items()},
    }


def _group_f1(found: Mapping[str, Figures], of_question: Mapping[str, str], key: str) -> float | None:
    values = [figures["f1"] for id_, figures in found.items() if of_question.get(id_) == key]
    return fmean(values) if values else None


def _over(values: Sequence[float | None]) -> dict[str, float] | None:
    """Mean, lowest and highest over the seeds."""
    known = [value for value in values if value is not None]
    return {"mean": fmean(known), "low": min(known), "high": max(known)} if known else None


def _shared_seeds(a: ArmRuns, b: ArmRuns) -> list[int]:
    return [seed for seed in a.seeds if seed in b.seeds]


def _compare(a: ArmRuns, b: ArmRuns, metric: str) -> tuple[Difference, dict[str, float]] | None:
    """B less A over the seeds and the questions that both have, and by each seed alone."""
    seeds = _shared_seeds(a, b)
    every = [arm.seeds[seed] for arm in (a, b) for seed in seeds]
    shared = [id_ for id_ in sorted(a.questions) if every and all(id_ in found for found in every)]
    if not shared:
        return None
    left, right = ([fmean(arm.seeds[seed][id_][metric] for seed in seeds) for id_ in shared] for arm in (a, b))
    by_seed = {
        str(seed): fmean(b.seeds[seed][id_][metric] - a.seeds[seed][id_][metric] for id_ in shared) for seed in seeds
    }
    return paired_difference(left, right), by_seed


def _comparison(arms: Mapping[str, ArmRuns], a: str, b: str, metric: str) -> dict[str, Any]:
    compared = _compare(arms[a], arms[b], metric)
    names = {"arm_a": a, "arm_b": b}
    if compared is None:
        return names
    difference, by_seed = compared
    return {**names, **asdict(difference), "by_seed": by_seed}


def _claim(arms: Mapping[str, ArmRuns], claim: ClaimSection) -> dict[str, Any]:
    """A point of the finding: the difference that it is about, and what that says of it."""
    said = claim.model_dump(mode="json")
    compared = None
    if claim.lower in arms and claim.higher in arms:
        compared = _compare(arms[claim.lower], arms[claim.higher], claim.metric)
    if compared is None:
        return {**said, "verdict": "missing"}
    difference, by_seed = compared
    found = {**asdict(difference), "by_seed": by_seed}
    return {**said, **found, "verdict": verdict(difference, list(by_seed.values()))}

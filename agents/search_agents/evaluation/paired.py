"""Two evaluations on the same questions, compared question by question: what ``search-env compare`` says.

Paired, because most of the spread of a score is the questions': two runs whose intervals
overlap may well differ for certain. Evaluations of different questions or corpora are
refused. An episode that is invalid in one run is left out of both, and counted. Verdicts
of two judges are not compared: what they differ in may be the judges.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from search_agents.config import differing_keys
from search_agents.evaluation.evaluation_folder import EvaluationFolder
from search_agents.evaluation.judge import JudgementLog, judgements_beside, judges_of, verdicts
from search_agents.evaluation.report import table
from search_agents.evaluation.resampling import Difference, paired_difference
from search_agents.evaluation.saved import read_saved
from search_agents.evaluation.scorer import answer_metrics
from search_agents.evaluation.transcript_log import is_valid
from search_env.errors import ConfigError, RunError
from search_env.types import Transcript

__all__ = ["FinishedRun", "Paired", "compare_runs", "read_run"]

Json = Mapping[str, Any]

_LABELS = {
    "f1": "F1",
    "em": "EM",
    "cem": "ACC_R (words)",
    "cem_contiguous": "CEM (piece)",
    "acc_l": "ACC_L (judge)",
    "searches": "searches a question",
}
_SAME = ("id", "split", "dataset_fingerprint", "corpus_fingerprint")
_SHOWN = 3


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """An evaluation that can be compared."""

    path: Path
    environment: Json
    """What was asked and searched."""
    settings: Json
    """Everything else that was chosen: method, its trained part, model, budgets."""
    transcripts: Mapping[str, Transcript]
    """By the id of the question."""
    verdicts: Mapping[str, bool | None]
    """A judge's verdicts, by the id of the question."""
    judge: str | None
    """Whose verdicts they are; None if nobody has judged."""


@dataclass(frozen=True, kw_only=True)
class Paired:
    """Two runs, A and B, on the same questions."""

    a: Path
    b: Path
    left_out: int
    """Questions whose episode is invalid in one of the runs or in both."""
    metrics: dict[str, Difference]
    differing: tuple[str, ...]
    """Dotted keys of the settings in which the runs differ."""
    judge: str | None
    """Whose verdicts ``acc_l`` counts; None if it is left out."""
    no_acc_l: str
    """Why ``acc_l`` is left out; empty if it is there."""

    def to_dict(self) -> dict[str, Any]:
        """As plain values."""
        return {**asdict(self), "a": str(self.a), "b": str(self.b), "differing": list(self.differing)}

    def report(self) -> str:
        """The same for people."""
        rows = [
            [
                _LABELS[name],
                *(f"{value:.3f}" for value in (each.a, each.b)),
                f"{each.difference:+.3f}",
                f"{each.low:+.3f} to {each.high:+.3f}",
                f"{each.p_value:.4f}",
            ]
            for name, each in self.metrics.items()
        ]
        n = next(iter(self.metrics.values())).n
        lines = [
            f"A: {self.a}\nB: {self.b}\n{n} questions"
            + (f", {self.left_out} left out because an episode of theirs is invalid" if self.left_out else ""),
            table(["metric", "A", "B", "B - A", "95 % interval", "p"], rows),
            f"ACC_L is left out: {self.no_acc_l}" if self.no_acc_l else f"ACC_L by {self.judge}",
            "They differ in: " + (", ".join(self.differing) or "no setting"),
        ]
        return "\n\n".join(lines)


def read_run(path: Path, *, judge: str | None = None) -> FinishedRun:
    """Read the evaluation in a folder of ``search-env eval``, at its first temperature.

    Args:
        path: The folder.
        judge: Whose verdicts count; None takes those of the only judge.

    Raises:
        ConfigError: If the judge has judged nothing there, or none is named and several have judged.
        DatasetError: If a transcript cannot be read.
        RunError: If the folder holds no evaluation, or one that has not come to its end.
    """
    folder = EvaluationFolder.open(path)
    result = folder.result()
    if result is None:
        raise RunError(f"{path}: the evaluation has not come to its end. Go on with it: search-env resume {path}")
    file = path / f"transcripts-{result['results'][0]['temperature']:g}.jsonl"
    transcripts = [episode.transcript for episode in read_saved(file, "ours")]
    log = JudgementLog(judgements_beside(file))
    chosen = None if judge is None else log.named(transcripts, judge)
    if judge is not None and chosen is None:
        known = ", ".join(log.judges(transcripts)) or "nobody"
        raise ConfigError(
            f"{judge!r} has judged no answer of {file}; who has: {known}. Name one of them, or ask it: "
            f"search-env score {file} --format ours --judge MODEL"
        )
    judgements = log.of(transcripts, chosen)
    found = verdicts(transcripts, judgements)
    ids = [transcript.question.id for transcript in transcripts]
    return FinishedRun(
        path=path,
        environment=result["environment"],
        settings={key: result.get(key) for key in ("config", "model_fingerprint", "method_fingerprint")},
        transcripts=dict(zip(ids, transcripts, strict=True)),
        verdicts=dict(zip(ids, found, strict=True)),
        judge=next(iter(judges_of(judgements)), None),
    )


def compare_runs(a: FinishedRun, b: FinishedRun) -> Paired:
    """Compare two runs on the questions that are valid in both.

    Returns:
        The answer metrics, ``acc_l`` if one judge has judged every answer of both, and ``searches``.

    Raises:
        ConfigError: If they were not asked the same questions over the same corpus, or no question is valid in both;
            names what differs.
    """
    _require_same_questions(a, b)
    shared = [id_ for id_ in a.transcripts if is_valid(a.transcripts[id_]) and is_valid(b.transcripts[id_])]
    if not shared:
        raise ConfigError(f"no question has a valid episode in both {a.path} and {b.path}. Resume them first.")
    left, right = ([_values(run, id_) for id_ in shared] for run in (a, b))
    missing = _no_acc_l(a, b, shared)
    names = [name for name in _LABELS if name != "acc_l" or not missing]
    return Paired(
        a=a.path,
        b=b.path,
        left_out=len(a.transcripts) - len(shared),
        metrics={name: paired_difference([row[name] for row in left], [row[name] for row in right]) for name in names},
        differing=tuple(differing_keys(a.settings, b.settings)),
        judge=None if missing else a.judge,
        no_acc_l=missing,
    )


def _no_acc_l(a: FinishedRun, b: FinishedRun, shared: Sequence[str]) -> str:
    """Why the verdicts on two runs cannot be compared; empty if they can."""
    if a.judge is None and b.judge is None:
        return "nobody has judged either run (search-env score FILE --format ours --judge MODEL asks a model)."
    for name, run in (("A", a), ("B", b)):
        if run.judge is None:
            return f"nobody has judged {name}, {run.path}."
    if a.judge != b.judge:
        return f"A is judged by {a.judge} and B by {b.judge}. Let one judge both; --judge MODEL says which one counts."
    for name, run in (("A", a), ("B", b)):
        if owed := sum(run.verdicts[id_] is None for id_ in shared):
            return f"{run.judge} has not judged {owed} of {len(shared)} answers of {name}, {run.path}."
    return ""


def _values(run: FinishedRun, id_: str) -> dict[str, float]:
    transcript = run.transcripts[id_]
    return {
        **answer_metrics(transcript, verdict=run.verdicts[id_]),
        "searches": float(len(transcript.queries)),
    }


def _require_same_questions(a: FinishedRun, b: FinishedRun) -> None:
    keys: tuple[str, ...] = _SAME
    if a.environment.get("corpus_fingerprint") is None and b.environment.get("corpus_fingerprint") is None:
        keys = (*keys, "retriever_fingerprint")  # nothing else tells what a retriever of its own documents searched
    problems = [
        f"{key} is {a.environment.get(key)!r} and {b.environment.get(key)!r}"
        for key in keys
        if a.environment.get(key) != b.environment.get(key)
    ]
    for one, other in ((a, b), (b, a)):
        if alone := [id_ for id_ in one.transcripts if id_ not in other.transcripts]:
            some = ", ".join(alone[:_SHOWN]) + (", …" if len(alone) > _SHOWN else "")
            problems.append(f"{len(alone)} questions are only in {one.path} ({some})")
    if problems:
        raise ConfigError(
            f"{a.path} and {b.path} cannot be compared: {'; '.join(problems)}. Evaluate both on the same questions "
            "over the same corpus: the same --env, --data, --limit and evaluation.split."
        )

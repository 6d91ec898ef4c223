"""The episodes of a run, wherever they lie: what a viewer can open.

A training run has evaluations and, of some groups of each step, the best and the worst
episode; an evaluation has a file of transcripts for each temperature, and so has each
method of a comparison; a sampling has the episodes it kept. All are JSON lines.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from search_agents.evaluation.evaluation_folder import EvaluationFolder
from search_agents.evaluation.saved import FORMATS, read_saved
from search_agents.evaluation.transcript_log import is_valid
from search_agents.learning.episode_metrics import TRUNCATED
from search_agents.learning.run_folder import RunFolder
from search_agents.rollout import SegmentKind
from search_env.datasets.rows import Row, SkippedRows, read_rows
from search_env.errors import ConfigError, DatasetError, RunError, unknown_name
from search_env.types import Action, ActionKind, FormatVerdict, Question, StopReason, Transcript, Turn

__all__ = ["Played", "models_of", "read_played", "run_of"]

_OURS = "ours"
_SUGGESTED = 5
_TOKENS = ("token_ids", "logprobs")
_MOST_IDS = 1 << 31


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """One episode, with what its file tells beside the transcript."""

    transcript: Transcript
    origin: str
    """Where in the run it comes from, for people: ``step 10, best``, ``evaluation after`` …"""
    valid: bool
    reward: float | None = None
    reward_parts: Mapping[str, float] = field(default_factory=dict)
    segments: Sequence[Mapping[str, Any]] = ()
    """As `search_agents.rollout.TokenSegment` has them; ids and log-probs may be missing."""
    trained: frozenset[SegmentKind] | None = None
    """The segments that the loss of a training step is of; None of an episode that is not of a step."""

    @property
    def key(self) -> tuple[str, str]:
        """What the episodes of one question share, in whichever run."""
        return self.transcript.question.id, self.transcript.question.text


def read_played(path: Path, format_: str = _OURS, skipped: SkippedRows | None = None) -> Iterator[Played]:
    """Read the episodes of a run one by one.

    Args:
        path: The folder of a training run, an evaluation, a method of a comparison or a sampling, or one file.
        format_: Who saved the file, a key of `search_agents.evaluation.saved.FORMATS`.
        skipped: Counts the malformed rows that are left out; None if there must be none.

    Raises:
        ConfigError: If there is no such format, or a folder is given with another format than ours.
        DatasetError: If a file cannot be read or a row is malformed.
        RunError: If the folder holds no episodes, or the ``meta.json`` of its training run is damaged.
    """
    if format_ not in FORMATS:
        raise ConfigError(unknown_name("format", format_, FORMATS))
    skipped = SkippedRows() if skipped is None else skipped
    if format_ != _OURS:
        if path.is_dir():
            raise ConfigError(f"{path} is a folder; --format {format_} reads one file. Name the file.")
        for episode in read_saved(path, format_, skipped):
            yield Played(transcript=episode.transcript, origin="", valid=is_valid(episode.transcript))
        return
    learner = _learner(path)
    for origin, file in _files(path):
        for row in read_rows(file, skipped):
            if (played := skipped.read(partial(_read, origin=origin, learner=learner), row)) is not None:
                yield played


def run_of(path: Path) -> Path | None:
    """The training run that a folder or file belongs to, if it does."""
    return next((place for place in (path, *path.parents[:2]) if (place / "meta.json").is_file()), None)


def models_of(path: Path) -> list[str]:
    """What the models are called that the episodes of a run may be of: its own, and the one that it was given."""
    home, names = run_of(path), []
    if home is not None:
        names += [str(home), RunFolder(home).meta().get("config", {}).get("model", {}).get("path")]
    for folder in filter(EvaluationFolder.is_at, (path, path.parent)):
        names.append(EvaluationFolder(folder).description().get("config", {}).get("model", {}).get("path"))
    return [name for name in names if name]


def _files(path: Path) -> list[tuple[str, Path]]:
    """The files of episodes with their origins, evaluations first."""
    if not path.is_dir():
        return [("", path)]
    found = [
        *((f"evaluation {file.stem}", file) for file in sorted(path.glob("evaluations/*.jsonl"))),
        *(
            (f"step {int(file.stem.removeprefix('step_'))}", file)
            for file in sorted(path.glob("episodes/step_*.jsonl"))
        ),
        *(
            (f"temperature {file.stem.removeprefix('transcripts-')}", file)
            for file in sorted(path.glob("transcripts-*.jsonl"))
        ),
        *(("kept", file) for file in path.glob("trajectories.jsonl")),
    ]
    if not found:
        deeper = sorted({file.parent for file in path.glob("*/**/transcripts-*.jsonl")})
        some = ", ".join(map(str, deeper[:_SUGGESTED])) + (", …" if len(deeper) > _SUGGESTED else "")
        advice = f"Give one of the folders in it: {some}" if deeper else "Give the folder of a run or an evaluation"
        raise RunError(f"{path} holds no episodes: no evaluations/, episodes/ or transcripts-*.jsonl. {advice}.")
    return found


def _learner(path: Path) -> Mapping[str, Any]:
    """The `LearnerSection` of the training run, as it was started; empty if there is none."""
    home = run_of(path)
    found: Mapping[str, Any] = RunFolder(home).meta().get("config", {}).get("learner", {}) if home is not None else {}
    return found


def _read(row: Row, *, origin: str, learner: Mapping[str, Any]) -> Played:
    fields = row.fields
    try:
        if "segments" not in fields:
            transcript = FORMATS[_OURS].read(row).transcript
            segments = _checked(_segments_of(transcript))
            return Played(transcript=transcript, origin=origin, valid=is_valid(transcript), segments=segments)
        transcript = FORMATS[_OURS].read(row).transcript if "transcript" in fields else _transcript_of_sample(fields)
        rank = fields.get("rank")
        return Played(
            transcript=transcript,
            origin=", ".join(filter(None, (origin, rank))),
            valid=bool(fields.get("valid", True)) and is_valid(transcript),
            reward=float(fields["reward"]),
            reward_parts={name: float(part) for name, part in fields["reward_parts"].items()},
            segments=_checked(fields["segments"]),
            trained=_trained(transcript, learner) if rank is not None and learner else None,
        )
    except DatasetError:
        raise  # it names the row already
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise row.error(f"is no episode of search-env ({type(error).__name__}: {error})") from None


def _trained(transcript: Transcript, learner: Mapping[str, Any]) -> frozenset[SegmentKind]:
    """What `search_agents.learning.preparation` leaves unmasked."""
    if learner.get("mask_overlong", False) and transcript.stop_reason in TRUNCATED:
        return frozenset()
    if learner.get("mask_documents", True):
        return frozenset({SegmentKind.SAMPLED})
    return frozenset({SegmentKind.SAMPLED, SegmentKind.OBSERVATION})


def _checked(segments: Sequence[Mapping[str, Any]]) -> tuple[Mapping[str, Any], ...]:
    """The segments, whose tokens a tokenizer can decode: a file may come from anywhere."""
    for segment in segments:
        ids, logprobs = (segment.get(key, ()) for key in _TOKENS)
        if not all(isinstance(id_, int) and 0 <= id_ < _MOST_IDS for id_ in ids):
            raise ValueError("'token_ids' must be whole numbers from 0")
        if len(logprobs) not in (0, len(ids)) or not all(isinstance(each, float | int | None) for each in logprobs):
            raise ValueError("'logprobs' must be numbers or null, one for each of 'token_ids'")
    return tuple(segments)


def _segments_of(transcript: Transcript) -> list[Mapping[str, Any]]:
    """The segments of an evaluation that kept the tokens that the model sampled; it keeps no others, and no prompt."""
    segments: list[Mapping[str, Any]] = []
    for turn in transcript.turns:
        ids, logprobs = ([value for call in turn.calls for value in getattr(call, key)] for key in _TOKENS)
        segments.append({"kind": SegmentKind.SAMPLED, "text": turn.segment, "token_ids": ids, "logprobs": logprobs})
        if turn.observation:
            segments.append({"kind": SegmentKind.OBSERVATION, "text": turn.observation})
    return segments if any(call.token_ids for turn in transcript.turns for call in turn.calls) else []


def _transcript_of_sample(fields: Mapping[str, Any]) -> Transcript:
    """The transcript of an episode of which a run kept the texts only: its documents are no more than text."""
    segments = [(SegmentKind(segment["kind"]), segment["text"]) for segment in fields["segments"]]
    queries, turns = iter(fields["queries"]), []
    for place, (kind, text) in enumerate(segments):
        if kind is not SegmentKind.SAMPLED:
            continue
        told = segments[place + 1][1] if place + 1 < len(segments) else ""
        query = next(queries, None) if told else None
        action = Action(kind=ActionKind.MALFORMED) if query is None else Action(kind=ActionKind.SEARCH, text=query)
        turns.append(Turn(segment=text, action=action, observation=told))
    if fields["answer"] is not None and turns:
        turns[-1] = Turn(segment=turns[-1].segment, action=Action(kind=ActionKind.ANSWER, text=fields["answer"]))
    return Transcript(
        question=Question(id=fields["question_id"], text=fields["question"], answers=tuple(fields["answers"])),
        turns=tuple(turns),
        stop_reason=StopReason(fields["stop_reason"]),
        format=FormatVerdict(problems=tuple(fields["format_problems"])),
    )

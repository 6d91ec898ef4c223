"""Episodes of every outcome, one with hostile text everywhere, as files that a viewer opens."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from search_agents.evaluation.transcript_log import transcript_record
from search_agents.rollout import Episode, SegmentKind, TokenSegment

from search_env.types import (
    Action,
    ActionKind,
    Call,
    Document,
    FormatVerdict,
    Hit,
    Question,
    StopReason,
    Transcript,
    Turn,
)

HOSTILE = (
    "</script><script>window.broken = 1</script><img src=x onerror='window.broken = 2'><!-- \u202e ${window.broken=3}"
)


def transcript(
    name: str, answer: str | None = "Oslo", stop: StopReason = StopReason.ANSWERED, *, text: str = ""
) -> Transcript:
    hits = (
        Hit(document=Document(id="d1", title="Edvard  munch", text=f"A painter. {text}"), score=2.5),
        Hit(document=Document(id="d2", title=f"Peru {text}", text="A country."), score=float("nan")),
    )
    search = Turn(
        segment=f"I look up {name}. {text} <begin_of_query> {name} painter <end_of_query>",
        action=Action(kind=ActionKind.SEARCH, text=f"{name} painter"),
        hits=hits,
        observation=f"(1) A painter. {text}",
        calls=(Call(purpose="verdict", prompt=f"Is it so? {text}", text="Perhaps.", prompt_tokens=7, tokens=2),),
    )
    last = Turn(
        segment=f"So it is. <answer> {answer} </answer>",
        action=Action(kind=ActionKind.MALFORMED, problem="no tag")
        if answer is None
        else Action(kind=ActionKind.ANSWER, text=answer),
    )
    return Transcript(
        question=Question(
            id=name, text=f"Where was {name} born? {text}", answers=("Oslo", "Christiania"),
            kind="bridge", hops=2, gold_titles=("Edvard Munch", "Norway"),
        ),
        turns=(search, last),
        stop_reason=stop,
        format=FormatVerdict(problems=("no answer",) if answer is None else ()),
    )  # fmt: skip


EVERY_OUTCOME = {
    "right": transcript("right"),
    "wrong": transcript("wrong", "Lima"),
    "no answer": transcript("nothing", None, StopReason.MALFORMED),
    "truncated": transcript("cut", None, StopReason.MAX_SEARCHES),
    "invalid": transcript("failed", None, StopReason.RETRIEVER_UNAVAILABLE),
}


def write_lines(file: Path, rows: list[dict[str, Any]]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.fixture
def evaluation(tmp_path: Path) -> Path:
    """The folder of an evaluation with an episode of each outcome, and a hostile one that is wrong."""
    folder = tmp_path / "before"
    transcripts = [*EVERY_OUTCOME.values(), transcript("hostile", HOSTILE, text=HOSTILE)]
    write_lines(folder / "transcripts-0.jsonl", [transcript_record(each) for each in transcripts])
    return folder


@pytest.fixture
def later(tmp_path: Path) -> Path:
    """An evaluation of two of the questions, both right, and of one more."""
    folder = tmp_path / "after"
    names = ("right", "wrong", "another")
    write_lines(folder / "transcripts-0.jsonl", [transcript_record(transcript(name)) for name in names])
    return folder


@pytest.fixture
def episode(tokenizer: Any) -> Episode:
    """An episode as tokens, of a text whose characters do not all fit into one token."""
    played = transcript("right")
    search, last = played.turns
    texts = (
        (SegmentKind.PROMPT, "Question: Où? 雪\n"),
        (SegmentKind.SAMPLED, search.segment),
        (SegmentKind.OBSERVATION, "\n(1) A painter: 雪国.\n"),
        (SegmentKind.SAMPLED, "So it is 雪. " + last.segment),
    )
    segments = []
    for kind, text in texts:
        ids = tuple(tokenizer.encode(text, add_special_tokens=False))
        logprobs = tuple(-0.2 * (place % 20) for place in range(len(ids))) if kind is SegmentKind.SAMPLED else ()
        segments.append(TokenSegment(kind=kind, token_ids=ids, logprobs=logprobs, text=text))
    return Episode(
        question_id="right", group=3, segments=tuple(segments), transcript=played, reward=1.5,
        reward_parts={"f1": 1.0, "format": 0.5}, metrics={"f1": 1.0}, stop_reason=StopReason.ANSWERED, valid=True,
    )  # fmt: skip


def with_tokens(played: Transcript, tokenizer: Any) -> Transcript:
    """The transcript as an engine with sessions leaves it: with the tokens of each segment."""
    turns = []
    for turn in played.turns:
        ids = tuple(tokenizer.encode(turn.segment, add_special_tokens=False))
        logprobs = tuple(round(-0.2 * (place % 20), 4) for place in range(len(ids)))
        call = Call(purpose="segment", prompt_tokens=9, tokens=len(ids), token_ids=ids, logprobs=logprobs)
        turns.append(dataclasses.replace(turn, calls=(call,)))
    return dataclasses.replace(played, turns=tuple(turns))


@pytest.fixture
def training_run(tmp_path: Path, episode: Episode, tokenizer: Any) -> Path:
    """The folder of a training run with a tokenizer in its model, an evaluation and the samples of a step."""
    folder = tmp_path / "run"
    tokenizer.save_pretrained(folder / "model")
    (folder / "model" / "config.json").write_text('{"model_type": "llama"}')
    (folder / "model" / "model.safetensors").write_bytes(b"")
    (folder / "meta.json").write_text("{}")
    (folder / "summary.json").write_text("{}")
    write_lines(folder / "evaluations" / "before.jsonl", [transcript_record(EVERY_OUTCOME["wrong"])])
    write_lines(folder / "episodes" / "step_000010.jsonl", [{**json.loads(episode.to_json()), "rank": "best"}])
    return folder


def metrics_row(step: int, stage: str = "stage1", **figures: float | None) -> dict[str, Any]:
    """A line of metrics.jsonl of a run that plays episodes."""
    keys = (
        "reward", "f1", "em", "search_rate", "format_rate", "searches_per_question", "response_tokens", "entropy", "kl",
    )  # fmt: skip
    return {"step": step, "stage": stage, **dict.fromkeys(keys, 0.5), "elapsed": 60.0 * step, **figures}


def sample_row(played: Transcript, reward: float) -> dict[str, Any]:
    """A line of episodes/step_*.jsonl."""
    asked = played.question
    return {
        "group": 0, "rank": "best", "question_id": asked.id, "question": asked.text, "answers": list(asked.answers),
        "answer": played.answer, "queries": list(played.queries), "reward": reward, "reward_parts": {"f1": reward},
        "metrics": {}, "stop_reason": str(played.stop_reason), "format_problems": [], "segments": [],
        "transcript": transcript_record(played),
    }  # fmt: skip


def write_run(
    folder: Path,
    rows: list[dict[str, Any]],
    *,
    samples: dict[int, list[tuple[Transcript, float]]] | None = None,
    evaluations: dict[str, float] | None = None,
    seed: int = 0,
    **config: Any,
) -> Path:
    """The folder of a training run as it is while it works; `evaluations` are F1 by name of the file."""
    settings = {
        "run": {"seed": seed, "name": "test"},
        "model": {"path": "tiny"},
        "evaluation": {"temperatures": [0.0, 1.0]},
        **config,
    }
    write_lines(folder / "metrics.jsonl", rows)
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "meta.json").write_text(json.dumps({"config": settings, "attempts": []}))
    for step, episodes in (samples or {}).items():
        write_lines(folder / "episodes" / f"step_{step:06d}.jsonl", [sample_row(*each) for each in episodes])
    for name, f1 in (evaluations or {}).items():
        scores = {"n": 20, "f1": f1, "em": 0.25, "cem": 0.5, "elapsed": 1.0}
        (folder / "evaluations").mkdir(exist_ok=True)
        (folder / "evaluations" / f"{name}.json").write_text(json.dumps(scores))
    return folder

"""An ablation of two arms, and run folders as finished trainings leave them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from search_agents.evaluation.transcript_log import transcript_record

from search_env.types import Action, ActionKind, Call, FormatVerdict, Question, StopReason, Transcript, Turn

TWO_ARMS: dict[str, Any] = {
    "title": "Left or right",
    "paper": {
        "source": "a paper, Table 1",
        "finding": "Left is better and searches more.",
        "figures": {"left": {"HotpotQA": [50, 60, 70.5]}, "right": {"HotpotQA": [40, 50, 60], "MuSiQue": [1, 2, 3]}},
    },
    "here": "Something smaller.",
    "arms": [{"name": "left", "overrides": {"learner.lr": 1e-3}}, {"name": "right"}],
    "claims": [
        {"metric": "f1", "higher": "left", "lower": "right"},
        {"metric": "searches", "higher": "left", "lower": "right"},
    ],
    "seeds": [0, 1],
}


def transcript(number: int, *, right: bool, searches: int = 1, valid: bool = True) -> Transcript:
    """An episode of as many searches, each of 5 tokens, and an answer of 7 tokens and two words."""
    search = Turn(
        segment="<begin_of_query> it <end_of_query>",
        action=Action(kind=ActionKind.SEARCH, text="it"),
        observation="(1) It.",
        calls=(Call(purpose="segment", prompt_tokens=9, tokens=5),),
    )
    answer = Turn(
        segment="<answer> … </answer>",
        action=Action(kind=ActionKind.ANSWER, text="New Oslo" if right else "Old Lima"),
        calls=(Call(purpose="segment", prompt_tokens=9, tokens=7),),
    )
    return Transcript(
        question=Question(
            id=f"q{number}", text="Where?", answers=("New Oslo",), kind="even" if number % 2 == 0 else "odd", hops=2
        ),
        turns=(*[search] * searches, answer),
        stop_reason=StopReason.ANSWERED if valid else StopReason.RETRIEVER_UNAVAILABLE,
        format=FormatVerdict(),
    )


Write = Callable[..., Path]


@pytest.fixture
def write_training(tmp_path: Path) -> Write:
    """Writes the folder of a finished training whose agent did these episodes."""

    def write(arm: str, seed: int, episodes: Sequence[Transcript]) -> Path:
        folder = tmp_path / arm / f"seed{seed}"
        (folder / "evaluations").mkdir(parents=True)
        config = {"run": {"seed": seed}, "model": {"path": "tiny"}, "evaluation": {"temperatures": [0.0]}}
        rows = [{"step": step, "stage": "stage1", "reward": 0.5, "f1": step / 10} for step in (1, 2)]
        files = {
            "config.json": json.dumps(config),
            "meta.json": json.dumps({"config": config, "attempts": []}),
            "summary.json": "{}",
            "metrics.jsonl": "".join(json.dumps(row) + "\n" for row in rows),
            "evaluations/after.jsonl": "".join(json.dumps(transcript_record(each)) + "\n" for each in episodes),
        }
        for name, text in files.items():
            (folder / name).write_text(text)
        return folder

    return write

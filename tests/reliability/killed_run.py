"""Runs `search-env` and ends it at one point of the second training step, as abruptly as a power cut does.

Usage: python killed_run.py POINT VERB …
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from search_agents.cli import main
from search_agents.evaluation.evaluate import HeldOut
from search_agents.learning import learner, run_folder, train

from search_env.rewards import Reward
from search_env.vector import SearchQAVectorEnv

STEP = 2


def kill(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def patch(owner: Any, name: str, make: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    setattr(owner, name, make(getattr(owner, name)))


def in_step(owner: Any, name: str, call: int) -> None:
    """Kill at a call of a method, counted from 1 within the step."""
    calls = {"step": 0, "made": 0}

    def stepping(original: Callable[..., Any]) -> Callable[..., Any]:
        def step(run: Any) -> None:
            calls.update(step=calls["step"] + 1, made=0)
            original(run)

        return step

    def counted(original: Callable[..., Any]) -> Callable[..., Any]:
        def called(*given: Any, **named: Any) -> Any:
            calls["made"] += 1
            if (calls["step"], calls["made"]) == (STEP, call):
                kill()
            return original(*given, **named)

        return called

    patch(train._Run, "_step", stepping)
    patch(owner, name, counted)


def in_log(original: Callable[..., Any]) -> Callable[..., Any]:
    """Kill with half of a line written."""

    def append(file: Path, row: Any) -> None:
        if row.get("step") == STEP:
            with file.open("a") as stream:
                stream.write('{"step": 2, "rew')
                stream.flush()
                kill()
        original(file, row)

    return append


def in_evaluation(original: Callable[..., Any]) -> Callable[..., Any]:
    """Kill in the evaluation of the trained model."""
    calls = []

    def measure(*given: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            kill()
        return original(*given, **named)

    return measure


POINTS: dict[str, Callable[[], None]] = {
    "rollout": lambda: in_step(SearchQAVectorEnv, "step", 2),
    "scoring": lambda: in_step(Reward, "__call__", 2),
    "backward": lambda: in_step(torch.Tensor, "backward", 1),
    "optimizer": lambda: in_step(torch.optim.AdamW, "step", 1),
    "mid-save": lambda: in_step(learner, "save_file", 1),
    "before-the-mark": lambda: in_step(Path, "touch", 1),
    "log": lambda: patch(run_folder, "append_jsonl", in_log),
    "evaluation": lambda: patch(HeldOut, "measure", in_evaluation),
}

if __name__ == "__main__":
    POINTS[sys.argv[1]]()
    sys.exit(main(sys.argv[2:]))

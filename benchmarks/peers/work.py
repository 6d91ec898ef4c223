"""The episodes that every environment of the comparison plays, and how long it takes them.

An environment is measured in a process of its own, of any Python: this module needs nothing but the standard library,
and a module beside it adapts one environment. The process gets the work, and answers every line it reads with one
measurement, so that whoever asks can take the environments in turn.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, NamedTuple, Protocol

__all__ = ["Outcome", "Player", "Work", "check_step", "measure", "query_of", "serve"]

Passage = tuple[str, str]
"""Title and text."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """One episode in each slot: some searches, then the right answer."""

    questions: Sequence[str]
    """By slot."""
    answers: Sequence[str]
    """By slot."""
    actions: Sequence[Sequence[str]]
    """By step and slot: the text that a model would have written. The last step answers, the others search."""
    found: Mapping[str, Sequence[Passage]]
    """What the retriever finds, by query."""
    episodes: int
    """How often each slot plays its episode in one measurement."""

    @property
    def top_k(self) -> int:
        """Passages a search returns."""
        return len(next(iter(self.found.values())))


class Outcome(NamedTuple):
    """What one slot got for its action."""

    text: str
    """What the model reads next."""
    reward: float
    ended: bool


class Player(Protocol):
    """An environment, or one a slot, as a trainer would use it."""

    distribution: str
    """The installed package."""
    settings: str
    """How it is used, for the page."""

    def reset(self) -> None:
        """Begin the episode of every slot."""

    def actions(self, texts: Sequence[str]) -> Sequence[Any]:
        """The actions that mean these texts; not timed."""

    def step(self, actions: Sequence[Any]) -> Any:
        """Act in every slot; what comes back is for `read`."""

    def read(self, result: Any) -> list[Outcome]:
        """What every slot got; not timed."""


def query_of(text: str) -> str:
    """The query of a search, or the answer of an answer: what stands between the last pair of tags."""
    return text[: text.rfind("</")].rpartition(">")[2].strip()


def check_step(work: Work, index: int, outcomes: Sequence[Outcome]) -> None:
    """Make sure that a step did the work.

    Raises:
        AssertionError: If a slot does not show every passage of its search, ended or was paid before its answer, or
            did not end with a reward of 1.
    """
    assert len(outcomes) == len(work.questions), f"{len(outcomes)} outcomes for {len(work.questions)} slots"
    for text, outcome in zip(work.actions[index], outcomes, strict=True):
        if index == len(work.actions) - 1:
            assert outcome.ended and outcome.reward == 1, f"the right answer {text!r} got {outcome}"
            continue
        assert not outcome.ended and outcome.reward == 0, f"the search {text!r} got {outcome}"
        missing = [passage for _, passage in work.found[query_of(text)] if passage not in outcome.text]
        assert not missing, f"the search {text!r} does not show {missing[0]!r} but {outcome.text!r}"


def measure(player: Player, work: Work) -> dict[str, float]:
    """Play the episodes, every step checked outside of the timing.

    Returns:
        Microseconds a slot: ``step_us`` (processor time of a step), ``step_wall_us`` and ``reset_us``; ``steps``.
    """
    actions = [player.actions(texts) for texts in work.actions]
    step_cpu = step_wall = reset_cpu = 0.0
    steps = 0
    for _ in range(work.episodes):
        begun = time.process_time()
        player.reset()
        reset_cpu += time.process_time() - begun
        for index, one_each in enumerate(actions):
            begun_wall, begun = time.perf_counter(), time.process_time()
            result = player.step(one_each)
            step_cpu += time.process_time() - begun
            step_wall += time.perf_counter() - begun_wall
            outcomes = player.read(result)
            check_step(work, index, outcomes)
            steps += len(outcomes)
    return {
        "step_us": step_cpu / steps * 1e6,
        "step_wall_us": step_wall / steps * 1e6,
        "reset_us": reset_cpu / (work.episodes * len(work.questions)) * 1e6,
        "steps": steps,
    }


def serve(make: Callable[[Work], Player]) -> None:
    """Play the work of the file named on the command line, once for each line of the standard input."""
    with open(sys.argv[1], encoding="utf-8") as file:
        work = Work(**json.load(file))
    player = make(work)
    about = {"version": version(player.distribution), "settings": " ".join(player.settings.split())}
    print(json.dumps(about), flush=True)
    for _ in sys.stdin:
        print(json.dumps(measure(player, work)), flush=True)

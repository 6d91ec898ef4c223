"""OpenEnv: it ships no search environment, so this is the least one that does the work, in one process."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from openenv.core.env_server import Action, Environment, Observation, State

from benchmarks.peers.work import Outcome, Work, serve

SEARCH = re.compile(r"<search>(.*?)</search>", re.DOTALL)
ANSWER = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


class TextAction(Action):  # type: ignore[misc]
    """What the model wrote."""

    text: str


class TextObservation(Observation):  # type: ignore[misc]
    """What it reads next."""

    text: str


class SearchEnvironment(Environment[TextAction, TextObservation, State]):  # type: ignore[misc]
    """One question."""

    def __init__(self, question: str, answer: str, work: Work) -> None:
        super().__init__()
        self._question, self._answer, self._found = question, answer, work.found
        self._state = State()

    def reset(self, seed: int | None = None, episode_id: str | None = None, **kwargs: Any) -> TextObservation:
        """Ask it."""
        self._state = State(episode_id=episode_id)
        return TextObservation(text=self._question)

    def step(self, action: TextAction, timeout_s: float | None = None, **kwargs: Any) -> TextObservation:
        """Search, or end with a reward for an exact match."""
        self._state.step_count += 1
        if search := SEARCH.search(action.text):
            found = self._found[search[1].strip()]
            lines = [f"Doc {rank}(Title: {title}) {text}" for rank, (title, text) in enumerate(found, start=1)]
            return TextObservation(text="<information>" + "\n".join(lines) + "</information>", reward=0.0)
        answer = ANSWER.search(action.text)
        right = answer is not None and answer[1].strip().lower() == self._answer.lower()
        return TextObservation(text="", reward=float(right), done=True)

    @property
    def state(self) -> State:
        """How many steps there were."""
        return self._state


class OpenEnv:
    """OpenEnv's environments one by one."""

    distribution = "openenv-core"
    settings = (
        "an Environment written for this comparison, of two regular expressions and an exact match, without budgets, "
        "format rules, metrics or protection from what documents say; in one process, without its server, in a loop"
    )

    def __init__(self, work: Work) -> None:
        self._envs = [
            SearchEnvironment(question, answer, work)
            for question, answer in zip(work.questions, work.answers, strict=True)
        ]

    def reset(self) -> None:
        """Ask every slot its question."""
        for env in self._envs:
            env.reset()

    def actions(self, texts: Sequence[str]) -> Sequence[str]:
        """The texts themselves."""
        return texts

    def step(self, actions: Sequence[str]) -> Any:
        """Slot after slot; the model of the action is made here, as OpenEnv asks for one."""
        return [env.step(TextAction(text=action)) for env, action in zip(self._envs, actions, strict=True)]

    def read(self, result: Any) -> list[Outcome]:
        """What every slot got."""
        return [Outcome(one.text, one.reward, one.done) for one in result]


if __name__ == "__main__":
    serve(OpenEnv)

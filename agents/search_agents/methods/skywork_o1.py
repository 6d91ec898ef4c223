"""Skywork-o1: standard RAG around the checkpoint, with the best of several responses as an option."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from pydantic import PositiveFloat, PositiveInt

from search_agents.config.sections import Section
from search_agents.methods.base import Setting
from search_agents.methods.long_thought import BEGINNING, LongThoughtMethod
from search_agents.methods.steps import Steps, note, retrieve, side_by_side
from search_env.errors import ConfigError
from search_env.types import Question

if TYPE_CHECKING:
    from search_agents.methods.process_reward import ProcessRewardModel

__all__ = ["SkyworkO1", "SkyworkO1Options"]


class SkyworkO1Options(Section):
    """Options of the method ``skywork-o1``."""

    best_of: PositiveInt = 1
    """Responses of which the best is taken; 1 as in the table of R1-Searcher, more need `prm` (the authors: 64)."""
    prm: str | None = None
    """The process reward model: a folder or hub id, for example Skywork/Skywork-o1-Open-PRM-Qwen-2.5-1.5B."""
    aggregate: Literal["mean", "min", "last"] = "mean"
    """How the rewards of the steps become that of the response (the authors do not say)."""
    temperature: PositiveFloat = 0.7
    """Of several responses; at the setting's, if that is 0, all of them would be the same (ours)."""
    device: str = "cpu"
    """Device of the process reward model: cpu, cuda, …"""


class SkyworkO1(LongThoughtMethod):
    """Skywork-o1 Open (Skywork team 2024): one search, then a long thought and an output.

    With `best_of` above 1, several responses are sampled and a process reward model reads each: the sigmoid of its
    number at the end of each line is the reward of that step. The response with the best mean is taken, the first of
    equals. The authors' planner Q* is not published and not part of this.

    Calls for n responses: n, and 1 more where the output had to be opened; 1 search. What the process reward model
    reads is noted and is not in the count of calls, for it is no call of the model that is compared.
    """

    name = "skywork-o1"
    checkpoint = "Skywork/Skywork-o1-Open-Llama-3.1-8B"
    Options = SkyworkO1Options

    def __init__(self, setting: Setting, options: Any = None) -> None:
        super().__init__(setting, options)
        if self.options.best_of > 1 and self.options.prm is None:
            raise ConfigError(
                "the method 'skywork-o1' needs a process reward model to take the best of several responses. Name one: "
                "{name: skywork-o1, best_of: 8, prm: Skywork/Skywork-o1-Open-PRM-Qwen-2.5-1.5B}."
            )

    def answer(self, question: Question) -> Steps[str]:
        """Search once, and think once or several times."""
        hits = yield from retrieve(question.text)
        count, begun = self.options.best_of, f"{BEGINNING}\n"
        temperature = self.options.temperature if count > 1 else None
        branches = [self.respond(question, hits, begun, temperature=temperature) for _ in range(count)]
        responses = yield from side_by_side(branches)
        if count == 1:
            return (yield from self.close(question, hits, responses[0]))
        rewards = []
        for number, response in enumerate(responses, start=1):
            steps = self._prm.step_rewards(self.material(question, hits), response)
            rewards.append(self._aggregate(steps))
            shown = ", ".join(f"{step:.4f}" for step in steps)
            yield from note("process reward", f"response {number}: {rewards[-1]:.4f} ({shown})")
        return (yield from self.close(question, hits, responses[rewards.index(max(rewards))]))

    def _aggregate(self, steps: tuple[float, ...]) -> float:
        """The reward of a response; 0 if it has no step."""
        if not steps:
            return 0.0
        return {"mean": sum(steps) / len(steps), "min": min(steps), "last": steps[-1]}[self.options.aggregate]

    @property
    def fingerprint(self) -> str | None:
        """That of the process reward model; None if it is not asked."""
        return self._prm.fingerprint if self.options.best_of > 1 else None

    @cached_property
    def _prm(self) -> ProcessRewardModel:
        from search_agents.methods.process_reward import ProcessRewardModel  # here: it brings torch

        assert self.options.prm is not None
        return ProcessRewardModel.load(self.options.prm, device=self.options.device)

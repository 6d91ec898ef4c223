"""Labels for the process reward model: which prefixes of the model's own reasoning still lead to the answer.

A prefix is worth the share of its rollouts that end right. Where a rollout goes wrong is
found by binary search, as in OmegaPRM (Luo et al. 2024, arXiv 2406.06592): the half that
holds the error is halved again, so that few prefixes are rolled out and those around the
error all are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, NamedTuple

from pydantic import Field, NonNegativeFloat, PositiveInt

from search_agents.config.sections import Section
from search_agents.methods.base import Setting
from search_agents.methods.rearter.lookahead import prefix_text
from search_agents.methods.rearter.reasoning import Path, Wording, look_ahead, sum_up
from search_agents.methods.steps import Steps, note, side_by_side
from search_agents.methods.stepwise import StepwiseMethod
from search_env.metrics import Normalisation, cover_contiguous, f1
from search_env.types import Question

__all__ = ["AnnotationOptions", "Annotator", "Node", "Rollout", "is_right", "q_value", "u_value"]


class AnnotationOptions(Section):
    """How prefixes are found and labelled; the defaults are the paper's or its code's."""

    rollouts: PositiveInt = 5
    """Rollouts of one prefix (N)."""
    iterations: PositiveInt = 20
    """The most rollouts of one question that are searched for their error."""
    max_steps: PositiveInt = 5
    """The most steps of a rollout, its prefix included; never more than the setting's searches."""
    temperatures: Annotated[tuple[NonNegativeFloat, ...], Field(min_length=1)] = (0.7, 1.0)
    """Temperatures of rollouts, given out in turn."""
    top_k: PositiveInt | None = None
    """Documents of one search; by default the setting's (paper: 1)."""


class Rollout(NamedTuple):
    """Reasoning from a prefix to the end."""

    steps: Path
    """The steps after the prefix."""
    right: bool
    """Whether the short answer that the whole path was put into is right."""


@dataclass(eq=False)
class Node:
    """A prefix with its rollouts."""

    prefix: Path
    rollouts: list[Rollout]
    visits: int = 0
    waiting: list[Rollout] = field(init=False)
    """Rollouts with a step to be searched that were not searched yet."""

    def __post_init__(self) -> None:
        self.waiting = [rollout for rollout in self.rollouts if rollout.steps]

    @property
    def mc(self) -> float:
        """The Monte Carlo estimate: the share of right rollouts."""
        return sum(rollout.right for rollout in self.rollouts) / len(self.rollouts)


def is_right(answer: str, golds: Sequence[str]) -> bool:
    """Whether an answer counts as right: word F1 above one half, or a gold answer is a piece of it (ReARTeR)."""
    normalisation = Normalisation.FLASHRAG
    return f1(answer, golds, normalisation) > 0.5 or cover_contiguous(answer, golds, normalisation) == 1.0


def q_value(rollout: Rollout, mc: float) -> float:
    """``0.5^(1 - MC) 0.9^(length / 6)``: short rollouts of prefixes that mostly end right come first (OmegaPRM).

    The length counts the steps and the short answer.
    """
    return float(0.5 ** (1 - mc) * 0.9 ** ((len(rollout.steps) + 1) / 6))


def u_value(visits: int, all_visits: int) -> float:
    """``0.125 sqrt(sum of all visits) / (1 + visits)``: prefixes that were seldom searched come first."""
    return 0.125 * math.sqrt(all_visits) / (1 + visits)


class Annotator(StepwiseMethod):
    """Labels prefixes of the model's reasoning on training questions, many questions at once.

    The root's rollouts come first: a question that is always or never answered right teaches nothing and is left.
    Otherwise the rollout of greatest Q + U, right ones too, is searched: the first half of its steps is rolled out;
    if some of these rollouts end right, the search goes on in the second half, and if none does, in the first. It ends
    with the last step, or at a prefix whose rollouts all end right. Prefixes that sometimes end right are kept and
    searched in their turn, those that never do are kept as they are.

    What differs from the authors' code: a prefix is kept once; the prefix of a node is part of those found below it.
    """

    name = "rearter-annotator"
    Options = AnnotationOptions
    options: AnnotationOptions

    def __init__(self, setting: Setting, options: AnnotationOptions | None = None) -> None:
        super().__init__(setting, options)
        self.records: dict[str, dict[str, Any]] = {}
        """What was found, by the id of the question."""

    def answer(self, question: Question) -> Steps[str]:
        """Annotate a question; the answer is empty, what was found is in `records`."""
        root = Node((), (yield from self._roll_out(question, ())))
        nodes, dead = [root], list[Node]()
        for _ in range(self.options.iterations if 0 < root.mc < 1 else 0):
            best = self._best(nodes)
            if best is None:
                break
            node, rollout = best
            node.waiting.remove(rollout)
            node.visits += 1
            found = yield from self.locate_error(question, node.prefix, rollout)
            nodes += [one for one in found if 0 < one.mc < 1]
            dead += [one for one in found if one.mc == 0]
        labels = {prefix_text(question, one.prefix): one for one in [*nodes[1:], *dead]}
        self.records[question.id] = {
            "id": question.id,
            "model": self.setting.engine.name,
            "mc": root.mc,
            "prefixes": [
                {"text": text, "steps": len(one.prefix), "searches": sum(step.searched for step in one.prefix)}
                | {"mc": one.mc}
                for text, one in labels.items()
            ],
        }
        return ""

    def locate_error(self, question: Question, prefix: Path, rollout: Rollout) -> Steps[list[Node]]:
        """Search a rollout for its first error by halves.

        Args:
            question: The question.
            prefix: What the rollout goes on from.
            rollout: Its steps, and after them its short answer, which is a step of the search too.

        Returns:
            The prefixes that were rolled out, in the order of the search. The shortest of those that never end right
            ends with the first error; if there is none, the error is in the short answer.
        """
        found: list[Node] = []
        first, end = 0, len(rollout.steps) + 1
        while end - first >= 2:
            middle = (first + end) // 2
            tried = (*prefix, *rollout.steps[:middle])
            node = Node(tried, (yield from self._roll_out(question, tried)))
            found.append(node)
            if node.mc == 1:
                break
            if node.mc > 0:
                first = middle
            else:
                end = middle
        return found

    def _roll_out(self, question: Question, prefix: Path) -> Steps[list[Rollout]]:
        options = self.options
        rollouts = yield from side_by_side(
            [
                self._finish(question, prefix, options.temperatures[number % len(options.temperatures)])
                for number in range(options.rollouts)
            ]
        )
        yield from note("rollouts", f"{sum(one.right for one in rollouts)} of {len(rollouts)} right")
        return rollouts

    def _finish(self, question: Question, prefix: Path, temperature: float) -> Steps[Rollout]:
        """Reason from a prefix to the end, and put the whole path into a short answer."""
        most = min(self.options.max_steps, self.setting.env.rules.budget.max_searches)
        wording = Wording(question, chat=self.setting.chat, top_k=self.options.top_k)
        steps: Path = ()
        if not (prefix and prefix[-1].final):
            steps = yield from look_ahead(wording, prefix, steps=most - len(prefix), temperature=temperature, last=True)
        answer = yield from sum_up(wording, (*prefix, *steps), temperature=temperature)
        return Rollout(steps, is_right(answer, question.answers))

    @staticmethod
    def _best(nodes: Sequence[Node]) -> tuple[Node, Rollout] | None:
        """The rollout that is to be searched next; None if all were."""
        visits = sum(node.visits for node in nodes)
        waiting = [(node, rollout) for node in nodes for rollout in node.waiting]
        return max(waiting, key=lambda one: q_value(one[1], one[0].mc) + u_value(one[0].visits, visits), default=None)

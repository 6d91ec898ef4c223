"""Marco-o1: standard RAG around the checkpoint, with the authors' tree search as an option."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt

from search_agents.config.sections import Section
from search_agents.engines.base import Capability, FinishReason
from search_agents.methods.base import Setting, able
from search_agents.methods.long_thought import BEGINNING, OUTPUT_END, THOUGHT_END, LongThoughtMethod
from search_agents.methods.steps import Steps, confidence, generate_all, note, retrieve
from search_env.errors import ConfigError
from search_env.types import Hit, Question

__all__ = ["MarcoO1", "MarcoO1Options"]

_REFLECTION = "Hold on, I may have made a mistake. Let me think it through again from the start."


class MarcoO1Options(Section):
    """Options of the method ``marco-o1``."""

    mode: Literal["cot", "mcts"] = "cot"
    """cot: one response, as in the table of R1-Searcher; mcts: the authors' tree search, which reads the five most
    likely tokens at each place and needs an engine that can next-token."""
    action: Literal["step", "mini-step-64", "mini-step-32"] = "step"
    """mcts: what one edge of the tree adds: a line, or 64 or 32 tokens (the authors' three granularities)."""
    reflect: bool = False
    """Whether each thought ends in a sentence of doubt and is thought on from there (the authors: as an option)."""
    simulations: PositiveInt = 8
    """mcts: responses that are sampled to their end (the authors do not publish theirs)."""
    width: PositiveInt = 3
    """mcts: children of a node (the authors do not publish theirs)."""
    exploration: NonNegativeFloat = 1.0
    """mcts: weight of the upper confidence bound (the authors do not publish theirs)."""
    temperature: PositiveFloat = 0.7
    """mcts: of all that is sampled; at the setting's, if that is 0, all children would be the same (ours)."""


class MarcoO1(LongThoughtMethod):
    """Marco-o1 (Zhao et al. 2024, arXiv 2411.14405): one search, then a long thought and an output.

    cot: 1 search; 1 call, and 1 more where the output had to be opened; with `reflect`, 1 more.

    mcts: a node is the response so far. Selection by upper confidence bound; expansion samples `width` actions; a
    simulation goes on from the child to the end of the response; its reward is the mean confidence of the tokens that
    the simulation wrote, c = p(token) / sum of p over the five most likely; backpropagation counts and adds. The answer
    is that of the simulation with the highest reward. Calls for n simulations: n, n more that read the confidences, and
    `width` for each node that is expanded; of a response that ended within the tree, only the confidences. One more
    where the best response has no output, which is opened then.

    The authors publish model, reward and granularities, and neither their search's code nor its constants.
    """

    name = "marco-o1"
    checkpoint = "AIDC-AI/Marco-o1"
    Options = MarcoO1Options

    def __init__(self, setting: Setting, options: Any = None) -> None:
        super().__init__(setting, options)
        if self.options.mode == "mcts" and Capability.NEXT_TOKEN not in setting.engine.capabilities:
            raise ConfigError(
                "the method 'marco-o1' with tree search reads the most likely tokens and needs an engine that can "
                f"{Capability.NEXT_TOKEN}; {setting.engine.name} can {able(setting.engine)}. Use the engine "
                "'transformers', or go without: {name: marco-o1, mode: cot}."
            )

    def answer(self, question: Question) -> Steps[str]:
        """Search once, and think."""
        hits = yield from retrieve(question.text)
        if self.options.mode == "mcts":
            response = yield from self._search_tree(question, hits)
        else:
            _, response = yield from self._go_on(question, hits, f"{BEGINNING}\n")
        return (yield from self.close(question, hits, response))

    def _go_on(self, question: Question, hits: Sequence[Hit], begun: str) -> Steps[tuple[str, str]]:
        """A response to its end, its thought doubted once if that is wanted.

        Returns:
            The response up to where the model began to write last, and all of it.
        """
        temperature = self.options.temperature if self.options.mode == "mcts" else None
        response = yield from self.respond(question, hits, begun, temperature=temperature)
        if self.options.reflect:
            begun = f"{response.partition(THOUGHT_END)[0].rstrip()}\n{_REFLECTION}\n"
            response = yield from self.respond(question, hits, begun, temperature=temperature)
        return begun, response

    def _search_tree(self, question: Question, hits: Sequence[Hit]) -> Steps[str]:
        """The response of the simulation with the highest reward."""
        root = _Node(f"{BEGINNING}\n")
        best, answer = -1.0, root.text
        for number in range(1, self.options.simulations + 1):
            path = _select(root, self.options.exploration)
            leaf = path[-1]
            if not leaf.ended and (leaf.visits or leaf is root):
                leaf.children = yield from self._expand(question, hits, leaf)
                path.append(leaf.children[0])
            if path[-1].ended:  # nothing is left to simulate: the reward is that of the last action
                begun, response = path[-2].text, path[-1].text
            else:
                begun, response = yield from self._go_on(question, hits, path[-1].text)
            prompt = self.prompt(question, hits, begun)
            reward = (yield from confidence("confidence", prompt, response.removeprefix(begun))).mean
            yield from note("reward", f"simulation {number}, depth {len(path) - 1}: {reward:.4f}")
            for node in path:
                node.visits, node.total = node.visits + 1, node.total + reward
            if reward > best:
                best, answer = reward, response
        return answer

    def _expand(self, question: Question, hits: Sequence[Hit], leaf: _Node) -> Steps[list[_Node]]:
        """Actions sampled after a node."""
        tokens = {"step": None, "mini-step-64": 64, "mini-step-32": 32}[self.options.action]
        completions = yield from generate_all(
            "action",
            [self.prompt(question, hits, leaf.text)] * self.options.width,
            stop=("\n",) if tokens is None else (OUTPUT_END,),
            max_tokens=tokens,
            temperature=self.options.temperature,
        )
        return [
            _Node(leaf.text + each.text, ended=each.finish is FinishReason.EOS or OUTPUT_END in each.text)
            for each in completions
        ]


@dataclass(eq=False)
class _Node:
    """A response so far."""

    text: str
    ended: bool = False
    """Whether nothing comes after it: it has its output, or the model ended it."""
    children: list[_Node] = field(default_factory=list)
    visits: int = 0
    total: float = 0.0
    """Sum of the rewards of the simulations through it."""

    def bound(self, parent: _Node, exploration: float) -> float:
        """UCT; a node that was never visited comes first."""
        if not self.visits:
            return math.inf
        return self.total / self.visits + exploration * math.sqrt(math.log(parent.visits) / self.visits)


def _select(root: _Node, exploration: float) -> list[_Node]:
    """The path from the root to a leaf, always to the child with the highest bound, the first of equals."""
    path = [root]
    while (parent := path[-1]).children:
        bounds = [child.bound(parent, exploration) for child in parent.children]
        path.append(parent.children[bounds.index(max(bounds))])
    return path

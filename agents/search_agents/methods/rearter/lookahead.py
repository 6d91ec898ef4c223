"""Which of several chains is best: a process reward model scores each prefix, and later scores correct earlier ones.

A reward model underrates first steps, which look alike whether they lead somewhere or
not; the temporal-difference update lets a chain's first step have part of what its
later steps turned out to be worth (ReARTeR, "early-step bias").
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np
import numpy.typing as npt

from search_agents.methods.rearter.reasoning import ReasoningStep, written
from search_env.dialects import make_inert
from search_env.types import Question

__all__ = ["Scorer", "chain_values", "prefix_text", "sigmoid", "td_value"]


class Scorer(Protocol):
    """A process reward model."""

    def score(self, texts: Sequence[str]) -> npt.NDArray[np.floating]:
        """Logits of texts, [texts]."""
        ...


def prefix_text(question: Question, path: Sequence[ReasoningStep]) -> str:
    """What the reward model reads of a path.

    The question stands at the end: a model of few tokens reads the last ones of a long text, and nothing can be judged
    without the question.
    """
    return f"{written(path)}Question: {make_inert(question.text)}"


def td_value(values: Sequence[float], *, alpha: float = 0.5, beta: float = 0.05) -> float:
    """The first state's value after ``V_t += alpha (V_{t+1} - V_t)``, from the end of a chain to its beginning.

    The chain is read up to the first state that gains less than `beta` over the one before it, and no further.

    Args:
        values: Logits of the states of a chain, at least one.
        alpha: How far a value moves towards the next one.
        beta: The least gain with which a chain is worth reading on.

    Example:
        >>> td_value([0.0, 1.0, 3.0]), td_value([0.0, -1.0, 9.0])
        (1.0, -0.5)
    """
    ends = (place + 1 for place, (one, other) in enumerate(pairwise(values)) if other - one < beta)
    end = next(ends, len(values) - 1)
    value = values[end]
    for earlier in reversed(values[:end]):
        value = earlier + alpha * (value - earlier)
    return value


def chain_values(
    scorer: Scorer,
    question: Question,
    path: Sequence[ReasoningStep],
    chains: Sequence[Sequence[ReasoningStep]],
    *,
    alpha: float,
    beta: float,
) -> list[float]:
    """The probability that each chain is right, in (0, 1): all prefixes are scored at once; see `td_value`.

    Args:
        scorer: The process reward model.
        question: The question.
        path: The path that the chains go on from.
        chains: At least one step each.
        alpha: See `td_value`.
        beta: See `td_value`.
    """
    texts = [prefix_text(question, [*path, *chain[: end + 1]]) for chain in chains for end in range(len(chain))]
    logits = iter(scorer.score(texts).tolist())
    return [sigmoid(td_value([next(logits) for _ in chain], alpha=alpha, beta=beta)) for chain in chains]


def sigmoid(logit: float) -> float:
    """The probability of a logit."""
    # Of a very negative logit, exp(-logit) would overflow.
    return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))

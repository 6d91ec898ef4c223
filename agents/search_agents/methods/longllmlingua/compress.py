"""The arithmetic of LongLLMLingua: which documents stay, how much of each, and which tokens."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["contrast", "dynamic_ratios", "mean_loss", "segments", "strongest", "within_budget"]


def mean_loss(logprobs: Sequence[float]) -> float:
    """Mean negative log-likelihood of a token, in nats."""
    return -float(np.mean(logprobs))


def within_budget(order: Sequence[int], tokens: Sequence[int], budget: int) -> list[int]:
    """The first documents of an order, up to and with the one that exceeds the budget.

    Args:
        order: Indices of documents, best first.
        tokens: Length of each document.
        budget: Tokens of all that stay.
    """
    kept = []
    for index in order:
        kept.append(index)
        budget -= tokens[index]
        if budget < 0:
            break
    return kept


def dynamic_ratios(count: int, base: float, spread: float) -> list[float]:
    """Share of tokens to keep of each document, best first: linear in the rank, from base + spread to base - spread.

    Jiang et al. 2024 (LongLLMLingua), equation 5; each share is cut to [0, 1]. A single document has the base.
    """
    steps = [spread * (count - 1 - 2 * rank) / (count - 1) for rank in range(count)] if count > 1 else [0.0] * count
    return [min(1.0, max(0.0, base + step)) for step in steps]


def contrast(plain: Sequence[float], asked: Sequence[float]) -> npt.NDArray[np.float64]:
    """How much likelier each token is once the question has been read.

    Jiang et al. 2024 (LongLLMLingua), equation 3: the loss of a token without the question, less that with it.

    Args:
        plain: Log-probability of each token after the compressed text before it.
        asked: The same after the question and the compressed text.
    """
    return np.subtract(asked, plain, dtype=np.float64)


def strongest(scores: npt.NDArray[np.float64], count: int) -> tuple[bool, ...]:
    """Marks the highest scores; of equal ones the earlier counts."""
    marks = np.zeros(len(scores), dtype=np.bool_)
    marks[np.argsort(-scores, kind="stable")[:count]] = True
    return tuple(marks.tolist())


def segments(text: str, tokens: int, size: int) -> list[str]:
    """Cut a text between words into the fewest even parts of about `size` tokens at most.

    Args:
        text: The text; joined the parts are the text.
        tokens: Its length.
        size: Tokens of a part.
    """
    words = re.findall(r"\s*\S+|\s+$", text)
    parts = min(max(1, -(-tokens // size)), len(words))
    return ["".join(words[part * len(words) // parts : (part + 1) * len(words) // parts]) for part in range(parts)]

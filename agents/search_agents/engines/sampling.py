"""One draw from a categorical distribution, made from a uniform number that the row brings along.

The number comes from the row's own seed, so what a row draws depends on the rows beside it
only as far as its logits do: by rounding, which in float32 leaves the tokens as they are
and in bfloat16 may change them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch

__all__ = ["draw_tokens", "row_uniforms"]


def row_uniforms(seeds: Sequence[int], count: int) -> npt.NDArray[np.float64]:
    """Draw the numbers that decide the tokens of each row.

    Args:
        seeds: One a row.
        count: Numbers a row; the n-th does not depend on it.

    Returns:
        Numbers in [0, 1), [rows, count].
    """
    uniforms = np.empty((len(seeds), count))
    for row, seed in enumerate(seeds):
        np.random.Generator(np.random.Philox(seed)).random(out=uniforms[row])
    return uniforms


def draw_tokens(logits: torch.Tensor, temperature: float, uniforms: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw one token a row by inverting the cumulative distribution.

    Args:
        logits: Any float dtype, [rows, vocab_size].
        temperature: Divides the logits; 0 takes the most likely token.
        uniforms: Numbers in [0, 1), float64 [rows].

    Returns:
        Token ids, long [rows], and their float32 log-probabilities, [rows]: under the distribution
        drawn from, or at temperature 0 under the untempered one.
    """
    logits = logits.float()
    if temperature == 0.0:
        tokens = logits.argmax(dim=-1)
    else:
        logits = logits / temperature
        # In float64 a sum over a large vocabulary keeps the order of magnitude of its rarest tokens.
        cumulative = logits.softmax(dim=-1).cumsum(dim=-1, dtype=torch.float64)
        level = (uniforms * cumulative[:, -1]).unsqueeze(-1)
        tokens = torch.searchsorted(cumulative, level, right=True).squeeze(-1).clamp_(max=logits.shape[-1] - 1)
    chosen = logits.gather(-1, tokens.unsqueeze(-1)).squeeze(-1)
    return tokens, chosen - logits.logsumexp(dim=-1)

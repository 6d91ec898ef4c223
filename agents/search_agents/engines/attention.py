"""How a model computes while it generates: without gradients, and without copying keys for grouped queries.

A model may be shared with a learner, so what is changed for generation is put back
afterwards: training or evaluation mode, and the attention function.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers.integrations.sdpa_attention import repeat_kv, sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

__all__ = ["generating", "grouped_attention"]

_NAME = "search_agents_grouped_sdpa"  # in the registry of transformers
_BLOCK = 256  # query positions


@contextmanager
def generating(model: Any, dtype: torch.dtype) -> Iterator[None]:
    """Run a model without gradients, in evaluation mode and with `grouped_attention`.

    Args:
        model: One that was loaded with another attention than SDPA keeps it.
        dtype: What matrix products are computed in; if it is not that of the weights, these are cast on the way.
    """
    training, attention = model.training, model.config._attn_implementation
    if training:
        model.eval()
    if attention == "sdpa" and model._supports_attention_backend:
        model.config._attn_implementation = _NAME
    try:
        with torch.no_grad(), torch.autocast(model.device.type, dtype, enabled=dtype is not model.dtype):
            yield
    finally:
        model.config._attn_implementation = attention
        if training:
            model.train()


def grouped_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Scaled dot-product attention for prefill over a cache and for decoding.

    With one new token a row, the query heads that share a key head are read as so many query positions.
    Transformers repeats keys and values for each of them instead, which at a batch of 128 rows, 400 tokens
    and 3 query heads a key head takes 12 times as long in fp32 on one thread. With more new tokens, PyTorch's kernel
    for CPUs takes keys as they are, whether there is a mask or not. Kernels for GPUs that take a mask do not, so there
    keys are repeated.

    Many new tokens a row are computed in blocks of queries, each against the keys up to its own last column: a mask
    of its own keeps the kernel from skipping what causality hides, two fifths of the time at 1,500 tokens.

    Args:
        module: The attention module.
        query: [rows, heads, new_tokens, head_dim].
        key: [rows, kv_heads, positions, head_dim].
        value: [rows, kv_heads, positions, head_dim].
        attention_mask: Added to the scores, [rows, 1, new_tokens, positions]; the last column of queries is the one
            that sees the last position. None for plain causality.
        **kwargs: Passed on; `scaling` scales the scores.

    Returns:
        The output, [rows, new_tokens, heads, head_dim], and None for the weights.
    """
    if attention_mask is None or kwargs.get("position_bias") is not None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)  # type: ignore[no-any-return]
    if query.shape[2] == 1:
        return _one_token(query, key, value, attention_mask, kwargs.get("scaling")), None
    return _in_blocks(query, key, value, attention_mask, kwargs.get("scaling")), None


def _one_token(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, scaling: float | None
) -> torch.Tensor:
    rows, heads, _, head_dim = query.shape
    grouped = query.view(rows, key.shape[1], heads // key.shape[1], head_dim)
    output = scaled_dot_product_attention(grouped, key, value, attn_mask=mask, scale=scaling)
    return output.reshape(rows, 1, heads, value.shape[-1])


def _in_blocks(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor, scaling: float | None
) -> torch.Tensor:
    if query.device.type != "cpu":
        groups = query.shape[1] // key.shape[1]
        key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    new_tokens, outputs = query.shape[2], []
    for start in range(0, new_tokens, _BLOCK):
        columns = slice(start, min(start + _BLOCK, new_tokens))
        # Each column to the left of the last one sees at least one position less than it.
        reach = key.shape[2] - (new_tokens - columns.stop)
        output = scaled_dot_product_attention(
            query[:, :, columns],
            key[:, :, :reach],
            value[:, :, :reach],
            attn_mask=mask[:, :, columns, :reach],
            scale=scaling,
            enable_gqa=True,
        )
        outputs.append(output.transpose(1, 2))
    return torch.cat(outputs, dim=1)


ALL_ATTENTION_FUNCTIONS.register(_NAME, grouped_attention)
# Without it transformers makes no mask for an attention of this name, and padding would be attended to.
ALL_MASK_ATTENTION_FUNCTIONS.register(_NAME, sdpa_mask)

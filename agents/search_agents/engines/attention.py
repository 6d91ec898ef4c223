"""How a model computes while it generates: without gradients, and without copying keys for grouped queries.

A model may be shared with a learner, so what is changed for generation is put back
afterwards: training or evaluation mode, and the attention function.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

__all__ = ["generating", "grouped_attention"]

_NAME = "search_agents_grouped_sdpa"  # in the registry of transformers


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
    """Scaled dot-product attention that does not copy keys and values for grouped queries while decoding.

    With one new token a row, the query heads that share a key head are read as so many query positions.
    Transformers repeats keys and values for each of them instead, which at a batch of 128 rows, 400 tokens
    and 3 query heads a key head takes 12 times as long in fp32 on one thread.

    Args:
        module: The attention module.
        query: [rows, heads, new_tokens, head_dim].
        key: [rows, kv_heads, positions, head_dim].
        value: [rows, kv_heads, positions, head_dim].
        attention_mask: Added to the scores, [rows, 1, new_tokens, positions].
        **kwargs: Passed on; `scaling` scales the scores.

    Returns:
        The output, [rows, new_tokens, heads, head_dim], and None for the weights.
    """
    rows, heads, new_tokens, head_dim = query.shape
    groups = heads // key.shape[1]
    if new_tokens > 1 or groups == 1 or kwargs.get("position_bias") is not None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)  # type: ignore[no-any-return]
    grouped = query.view(rows, key.shape[1], groups, head_dim)
    output = torch.nn.functional.scaled_dot_product_attention(
        grouped, key, value, attn_mask=attention_mask, scale=kwargs.get("scaling")
    )
    return output.reshape(rows, 1, heads, value.shape[-1]), None


ALL_ATTENTION_FUNCTIONS.register(_NAME, grouped_attention)
# Without it transformers makes no mask for an attention of this name, and padding would be attended to.
ALL_MASK_ATTENTION_FUNCTIONS.register(_NAME, sdpa_mask)

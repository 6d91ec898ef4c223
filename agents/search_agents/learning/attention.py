"""Causal attention for training on a CPU in bfloat16, block by block of queries.

PyTorch's own CPU kernel spends more time on a backward pass of a few hundred tokens
than all matrix products of a small model together. Here both passes are batched
bfloat16 products, which CPUs with such instructions do at twice the rate of float32.
Keys after a block's last query are never touched, so about half the work of the full
score matrix is left out. Measured at 4 rows of 350 tokens, 6 heads of 32 on one thread
(AVX512-BF16): 11 ms instead of 29 ms for forward and backward.

The probabilities are kept for the backward pass, which is why long rows go to the
kernel that needs no memory for them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, sdpa_mask
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

__all__ = ["blockwise_attention", "training_attention"]

_NAME = "search_agents_blockwise"  # in the registries of transformers
_BLOCK = 64
_MAX_LENGTH = 2048


@contextmanager
def training_attention(model: Any) -> Iterator[None]:
    """Within the block a model on SDPA computes its attention with `blockwise_attention` where that applies."""
    implementation = model.config._attn_implementation
    if implementation == "sdpa" and model._supports_attention_backend:
        model.config._attn_implementation = _NAME
    try:
        yield
    finally:
        model.config._attn_implementation = implementation


def blockwise_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention with bfloat16 products; anything else is left to SDPA.

    Args:
        module: The attention module.
        query: [rows, heads, tokens, head_dim]; the last tokens of those that have keys.
        key: [rows, kv_heads, keys, head_dim].
        value: [rows, kv_heads, keys, head_dim].
        attention_mask: None for plain causal attention.
        **kwargs: `scaling` scales the scores; the rest is passed on.

    Returns:
        The output, [rows, tokens, heads, head_dim], and None for the weights.
    """
    if not _applies(module, query, key, value, attention_mask, kwargs):
        return _sdpa(module, query, key, value, attention_mask, **kwargs)
    scaling = kwargs.get("scaling") or query.shape[-1] ** -0.5
    with torch.autocast("cpu", enabled=False):  # the number formats of each product are chosen below
        output: torch.Tensor = _CausalAttention.apply(query, key, value, scaling)  # type: ignore[no-untyped-call]
    return output.transpose(1, 2), None


def _sdpa(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """SDPA, whose causal kernel takes the first query for one that sees the first key only.

    It leaves half of the scores out and keeps none of them, so it is given rows of zeros for the queries that lack;
    where most do, a mask costs less.
    """
    tokens, keys = query.shape[2], key.shape[2]
    lacking = keys - tokens if mask is None and tokens > 1 else 0
    if lacking > tokens:
        mask = torch.ones(tokens, keys, dtype=torch.bool, device=query.device).tril(lacking)
    elif lacking:
        query = torch.nn.functional.pad(query, (0, 0, lacking, 0))
    output, _ = sdpa_attention_forward(module, query, key, value, mask, **kwargs)
    return output[:, -tokens:], None


def _applies(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    options: dict[str, Any],
) -> bool:
    in_bfloat16 = torch.is_autocast_enabled("cpu") or value.dtype is torch.bfloat16
    plain = mask is None and not any(options.get(name) for name in ("dropout", "softcap", "position_bias"))
    is_causal = options.get("is_causal")
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    short = 1 < query.shape[2] <= key.shape[2] <= _MAX_LENGTH and key.shape[-1] == value.shape[-1]
    return query.device.type == "cpu" and in_bfloat16 and plain and causal and short


class _CausalAttention(torch.autograd.Function):
    """In the shapes below: N = rows x kv_heads, G = query heads a key head, T = tokens, K = keys, D = head_dim."""

    @staticmethod
    def forward(ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float) -> torch.Tensor:
        rows, heads, tokens, dim = query.shape
        groups = heads // key.shape[1]
        # Scores are summed in float32: rounded to bfloat16, the large ones of a sharp head would be off by a tenth.
        queries = (query.float() * scaling).reshape(-1, groups, tokens, dim)  # [N, G, T, D]
        keys = key.float().reshape(-1, key.shape[2], dim)  # [N, K, D]
        values = value.bfloat16().reshape(-1, key.shape[2], dim)  # [N, K, D]
        before = key.shape[2] - tokens  # keys that every query sees
        future = torch.ones(_BLOCK, _BLOCK, dtype=torch.bool).triu(1)
        output = torch.empty(queries.shape, dtype=torch.bfloat16)
        weights = []
        for start, stop in _blocks(tokens):
            size, seen = stop - start, before + stop
            block = queries[:, :, start:stop].reshape(-1, groups * size, dim)
            scores = torch.bmm(block, keys[:, :seen].transpose(1, 2)).view(-1, groups, size, seen)
            scores[..., before + start :].masked_fill_(future[:size, :size], float("-inf"))
            weights.append(torch.softmax(scores, dim=-1).bfloat16().view(-1, groups * size, seen))
            output[:, :, start:stop] = torch.bmm(weights[-1], values[:, :seen]).view(-1, groups, size, dim)
        queries, keys = queries.bfloat16(), keys.bfloat16()
        ctx.save_for_backward(queries, keys, values, *weights)
        ctx.scaling, ctx.dtypes = scaling, (query.dtype, key.dtype, value.dtype)
        return output.view(rows, heads, tokens, dim)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None]:
        queries, keys, values, *weights = ctx.saved_tensors
        _, groups, tokens, dim = queries.shape
        grad_output = grads[0].bfloat16().reshape(queries.shape)
        grad_queries = torch.empty_like(queries)
        grad_keys, grad_values = (torch.zeros(keys.shape, dtype=torch.float32) for _ in range(2))
        for (start, stop), weight in zip(_blocks(tokens), weights, strict=True):
            rows, seen = groups * (stop - start), weight.shape[-1]
            grad = grad_output[:, :, start:stop].reshape(-1, rows, dim)
            grad_values[:, :seen] += torch.bmm(weight.transpose(1, 2), grad)
            grad_weight = torch.bmm(grad, values[:, :seen].transpose(1, 2))
            grad_scores = torch._softmax_backward_data(grad_weight, weight, -1, torch.bfloat16)
            grad_queries[:, :, start:stop] = torch.bmm(grad_scores, keys[:, :seen]).view(-1, groups, stop - start, dim)
            block = queries[:, :, start:stop].reshape(-1, rows, dim)
            grad_keys[:, :seen] += torch.bmm(grad_scores.transpose(1, 2), block)
        batch = grads[0].shape[0]
        query, key, value = (
            grad.view(batch, -1, grad.shape[-2], dim).to(dtype)
            for grad, dtype in zip((grad_queries * ctx.scaling, grad_keys, grad_values), ctx.dtypes, strict=True)
        )
        return query, key, value, None


def _blocks(tokens: int) -> list[tuple[int, int]]:
    return [(start, min(start + _BLOCK, tokens)) for start in range(0, tokens, _BLOCK)]


ALL_ATTENTION_FUNCTIONS.register(_NAME, blockwise_attention)
ALL_MASK_ATTENTION_FUNCTIONS.register(_NAME, sdpa_mask)

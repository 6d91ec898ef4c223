from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from search_agents.learning.attention import blockwise_attention, training_attention
from torch.nn.functional import scaled_dot_product_attention

MODULE = torch.nn.Module()


def heads(rows: int, number: int, tokens: int, dim: int, seed: int) -> torch.Tensor:
    """Laid out as a model's projections are: [rows, tokens, heads, dim] in memory."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, tokens, number, dim, generator=generator).transpose(1, 2).requires_grad_()


def attend(tokens: int, *, kv_heads: int, scaling: float) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Output and gradients of the blockwise attention in bfloat16, and of SDPA in float32."""
    results = []
    for ours in (True, False):
        query, key, value = (heads(3, number, tokens, 16, seed) for seed, number in enumerate((6, kv_heads, kv_heads)))
        if ours:
            with torch.autocast("cpu", torch.bfloat16):
                output = blockwise_attention(MODULE, query, key, value, None, scaling=scaling)[0].transpose(1, 2)
        else:
            output = scaled_dot_product_attention(query, key, value, is_causal=True, scale=scaling, enable_gqa=True)
        weights = torch.linspace(-1, 1, output.numel()).view(output.shape)
        (output * weights).sum().backward()
        results.append([output.detach(), query.grad, key.grad, value.grad])
    return results[0], results[1]


@pytest.mark.parametrize("tokens", [2, 63, 64, 65, 200])
@pytest.mark.parametrize("kv_heads", [6, 2, 1])
def test_blockwise_attention_is_causal_attention_to_bfloat16_precision(tokens: int, kv_heads: int) -> None:
    ours, exact = attend(tokens, kv_heads=kv_heads, scaling=0.3)
    for mine, wanted in zip(ours, exact, strict=True):
        assert (mine.float() - wanted).norm() < 0.01 * wanted.norm()


def test_sharp_heads_keep_their_precision() -> None:
    ours, exact = attend(150, kv_heads=2, scaling=8.0)  # scores beyond 100: in bfloat16 they would be off by 0.5
    assert (ours[0].float() - exact[0]).abs().max() < 0.05


def test_later_tokens_do_not_change_earlier_outputs() -> None:
    tensors = [heads(2, 4, 130, 16, seed).detach() for seed in range(3)]
    changed = [torch.cat([tensor[:, :, :100], tensor[:, :, 100:] + 5], dim=2) for tensor in tensors]
    with torch.autocast("cpu", torch.bfloat16):
        first, second = (blockwise_attention(MODULE, *inputs, None)[0] for inputs in (tensors, changed))
    torch.testing.assert_close(first[:, :100], second[:, :100], rtol=0, atol=0)
    assert not torch.equal(first[:, 100:], second[:, 100:])


def test_float32_masks_and_long_rows_are_left_to_sdpa() -> None:
    query, key, value = (heads(2, 4, 20, 16, seed).detach() for seed in range(3))
    exact = scaled_dot_product_attention(query, key, value, is_causal=True).transpose(1, 2)
    torch.testing.assert_close(blockwise_attention(MODULE, query, key, value, None)[0], exact, rtol=0, atol=1e-6)
    mask = torch.zeros(2, 1, 20, 20)
    with torch.autocast("cpu", torch.bfloat16):
        full, _ = blockwise_attention(MODULE, query, key, value, mask)
        decoding, _ = blockwise_attention(MODULE, query[:, :, -1:], key, value, None)
    assert (full[:, 0].float() - exact[:, 0]).norm() > 0.1, "the mask allows the first token to look ahead"
    assert (decoding[:, 0].float() - exact[:, -1]).norm() < 0.02 * exact[:, -1].norm()


def test_a_model_computes_the_same_with_it_and_is_left_as_it_was(make_model: Callable[..., Any]) -> None:
    model = make_model().bfloat16()
    input_ids = torch.arange(90).view(1, 90)
    plain = model(input_ids=input_ids).logits
    with training_attention(model):
        assert model.config._attn_implementation == "search_agents_blockwise"
        ours = model(input_ids=input_ids).logits
    assert model.config._attn_implementation == "sdpa"
    assert not torch.equal(ours, plain)
    assert (ours - plain).float().norm() < 0.03 * plain.float().norm()


def test_a_model_on_eager_attention_keeps_it(make_model: Callable[..., Any]) -> None:
    model = make_model(attn_implementation="eager")
    with training_attention(model):
        assert model.config._attn_implementation == "eager"

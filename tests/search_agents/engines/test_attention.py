from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from search_agents.engines.attention import grouped_attention
from transformers.integrations.sdpa_attention import sdpa_attention_forward


@pytest.mark.parametrize("new_tokens", [1, 4])
@pytest.mark.parametrize(("heads", "kv_heads"), [(6, 2), (6, 6), (6, 1)])
def test_grouped_attention_equals_the_one_of_transformers(heads: int, kv_heads: int, new_tokens: int) -> None:
    torch.manual_seed(0)
    query = torch.randn(3, heads, new_tokens, 8)
    key, value = torch.randn(2, 3, kv_heads, 20, 8)[:, :, :, :11]  # cropped views, as the cache gives them
    lengths = torch.tensor([5, 11, 8])
    mask = torch.zeros(3, 1, new_tokens, 11).masked_fill(torch.arange(11) >= lengths[:, None, None, None], -1e30)
    module = SimpleNamespace(num_key_value_groups=heads // kv_heads, is_causal=True)
    expected, _ = sdpa_attention_forward(module, query, key, value, mask, scaling=0.3)
    found, weights = grouped_attention(module, query, key, value, mask, scaling=0.3)
    assert weights is None
    torch.testing.assert_close(found, expected)


def test_many_new_tokens_computed_in_blocks_equal_one_pass() -> None:
    torch.manual_seed(0)
    new_tokens, crop, lengths = 300, 340, torch.tensor([300, 20, 170])  # new tokens of each row, padded on the left
    query, key, value = torch.randn(3, 6, new_tokens, 8), torch.randn(3, 2, crop, 8), torch.randn(3, 2, crop, 8)
    columns = torch.arange(new_tokens) - (new_tokens - lengths)[:, None]
    positions = (columns + torch.tensor([40, 0, 7])[:, None]).clip(min=0)
    hidden = torch.arange(crop) > positions[:, None, :, None]
    mask = torch.zeros(hidden.shape).masked_fill(hidden, torch.finfo(torch.float32).min)
    module = SimpleNamespace(num_key_value_groups=3, is_causal=True)
    expected, _ = sdpa_attention_forward(module, query, key, value, mask, scaling=0.3)
    found, _ = grouped_attention(module, query, key, value, mask, scaling=0.3)
    torch.testing.assert_close(found, expected)

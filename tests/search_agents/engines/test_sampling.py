from __future__ import annotations

import numpy as np
import torch
from search_agents.engines.sampling import draw_tokens, row_uniforms


def draw(logits: list[float], temperature: float, uniforms: list[float]) -> tuple[list[int], list[float]]:
    rows = torch.tensor([logits] * len(uniforms))
    tokens, logprobs = draw_tokens(rows, temperature, torch.tensor(uniforms, dtype=torch.float64))
    return tokens.tolist(), logprobs.tolist()


def test_a_uniform_number_picks_the_token_whose_share_it_falls_into() -> None:
    logits = np.log([0.25, 0.5, 0.25]).tolist()
    tokens, logprobs = draw(logits, 1.0, [0.0, 0.2499, 0.2501, 0.7499, 0.7501, 1 - 2**-53])
    assert tokens == [0, 0, 1, 1, 2, 2]
    np.testing.assert_allclose(logprobs, np.log([0.25, 0.25, 0.5, 0.5, 0.25, 0.25]), rtol=1e-6)


def test_temperature_sharpens_the_distribution_that_the_logprob_is_told_of() -> None:
    tokens, logprobs = draw(np.log([0.25, 0.75]).tolist(), 0.5, [0.05, 0.5])
    assert tokens == [0, 1]
    np.testing.assert_allclose(np.exp(logprobs), [0.1, 0.9], rtol=1e-6)  # 0.25² : 0.75² = 1 : 9


def test_greedy_takes_the_likeliest_and_tells_its_untempered_logprob() -> None:
    tokens, logprobs = draw(np.log([0.2, 0.5, 0.3]).tolist(), 0.0, [0.99])
    assert tokens == [1]
    np.testing.assert_allclose(np.exp(logprobs), [0.5], rtol=1e-6)


def test_a_token_of_probability_zero_is_never_drawn() -> None:
    inf = float("inf")
    assert draw([-inf, 0.0, -inf], 1.0, [0.0, 1 - 2**-53])[0] == [1, 1]


def test_bfloat16_logits_give_float32_logprobs() -> None:
    logits = torch.randn(4, 50, dtype=torch.bfloat16)
    _, logprobs = draw_tokens(logits, 1.0, torch.rand(4, dtype=torch.float64))
    assert logprobs.dtype == torch.float32


def test_rows_draw_the_same_numbers_whoever_is_beside_them() -> None:
    alone = row_uniforms([7], 5)
    np.testing.assert_array_equal(row_uniforms([3, 7], 9)[1, :5], alone[0])
    assert alone.min() >= 0 and alone.max() < 1
    assert not np.array_equal(alone[0], row_uniforms([8], 5)[0])


def test_frequencies_follow_the_probabilities() -> None:
    probabilities = np.array([0.1, 0.2, 0.3, 0.4])
    uniforms = torch.from_numpy(row_uniforms([0], 20_000)[0])
    tokens, _ = draw_tokens(torch.from_numpy(np.log(probabilities)).expand(20_000, -1), 1.0, uniforms)
    np.testing.assert_allclose(np.bincount(tokens.numpy(), minlength=4) / 20_000, probabilities, atol=0.01)

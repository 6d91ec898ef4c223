"""Confidence of tokens: read from the distribution of the next token, the same alone and side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from search_agents.engines.base import ScoringRequest
from search_agents.engines.confidence import TokenConfidences, token_confidences
from search_agents.engines.transformers import TransformersEngine

from search_env.types import Prompt

REQUESTS = [
    (Prompt(user="the capital of Norway"), " is Oslo."),
    (Prompt(user="x"), "y"),
    (Prompt(user="the end"), ""),
]


@pytest.fixture(scope="module")
def engine(make_model: Callable[..., Any], tokenizer: Any) -> TransformersEngine:
    return TransformersEngine(make_model(), tokenizer)


def test_each_token_is_weighed_against_the_five_most_likely(engine: TransformersEngine) -> None:
    found = token_confidences(engine, REQUESTS[:1], chat=False)[0]
    prompt, text = engine.tokenizer.encode("the capital of Norway"), engine.tokenizer.encode(" is Oslo.")
    with torch.inference_mode():
        logits = engine.model(torch.tensor([prompt + text])).logits[0, len(prompt) - 1 : -1]
    probabilities = logits.double().softmax(-1)
    chosen = probabilities[torch.arange(len(text)), torch.tensor(text)]
    expected = chosen / probabilities.topk(5).values.sum(-1)
    np.testing.assert_allclose(found.values, expected.numpy(), rtol=1e-4)
    assert found.prompt_tokens == len(prompt) + len(text) and found.mean == pytest.approx(
        float(expected.mean()), rel=1e-4
    )


def test_beside_the_whole_vocabulary_the_confidence_is_the_probability(engine: TransformersEngine) -> None:
    (found,) = token_confidences(engine, REQUESTS[:1], chat=False, top=len(engine.tokenizer))
    (scored,) = engine.score([ScoringRequest(context="the capital of Norway", text=" is Oslo.")])
    np.testing.assert_allclose(found.values, np.exp(scored.logprobs), rtol=1e-4)


def test_texts_are_measured_side_by_side_as_they_are_alone(engine: TransformersEngine) -> None:
    together = token_confidences(engine, REQUESTS, chat=False)
    for request, found in zip(REQUESTS, together, strict=True):
        (alone,) = token_confidences(engine, [request], chat=False)
        np.testing.assert_allclose(found.values, alone.values, rtol=1e-4)
    assert [len(found.values) > 0 for found in together] == [True, True, False]
    assert together[2].mean == 0.0 and token_confidences(engine, [], chat=False) == []


def test_what_does_not_fit_into_the_context_is_left_out(engine: TransformersEngine) -> None:
    (found,) = token_confidences(engine, [(Prompt(user="x"), "y" * 5000)], chat=False)
    assert len(found.values) == engine.max_context - 2
    (none,) = token_confidences(engine, [(Prompt(user="x" * 5000), "y")], chat=False)
    assert none == TokenConfidences(values=(), prompt_tokens=none.prompt_tokens)

"""Texts outside sessions: the same tokens, whatever they are batched with and however the batches are cut."""

import numpy as np
import pytest
import torch
from search_agents.engines.base import GenerationRequest, SamplingParams
from search_agents.engines.transformers import TransformersEngine
from search_agents.models import find_model

from search_env.types import Prompt


@pytest.fixture(scope="module")
def engine():
    return TransformersEngine.from_pretrained(find_model("tiny"), dtype="float32")


def request(text, seed=0, **sampling):
    return GenerationRequest(
        prompt=Prompt(user=text), sampling=SamplingParams(**{"max_tokens": 8} | sampling), seed=seed
    )


REQUESTS = [
    request("Question: who?\n<think>", seed=1),
    request("Question: " + "where is it " * 30, seed=2),
    request("Question: when?", seed=3, temperature=0.0),
    request("Q", seed=4, max_tokens=3),
]


def test_completions_come_in_order_and_do_not_depend_on_the_batch(engine):
    together = engine.generate(REQUESTS, chat=False, max_tokens=300)
    alone = [engine.generate([each], chat=False, max_tokens=300)[0] for each in REQUESTS]
    small = TransformersEngine(engine.model, engine.tokenizer, cache_tokens=1)
    for others in (alone, small.generate(REQUESTS, chat=False, max_tokens=300)):
        assert [(each.text, each.finish, each.tokens) for each in others] == [
            (each.text, each.finish, each.tokens) for each in together
        ]
        for one, other in zip(together, others, strict=True):
            np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-4)
    assert [each.tokens for each in together] == [len(each.logprobs) for each in together]
    assert together[3].tokens <= 3
    assert together[1].prompt_tokens == len(engine.encode_prompt(REQUESTS[1].prompt, chat=False))


def test_a_prompt_that_leaves_no_room_has_no_completion(engine):
    long = len(engine.encode_prompt(REQUESTS[1].prompt, chat=False))
    found = engine.generate(REQUESTS[:2], chat=False, max_tokens=long)
    assert found[0] is not None and found[1] is None
    assert engine.generate(REQUESTS[1:2], chat=False, max_tokens=long + 1)[0].tokens == 1
    assert engine.generate([], chat=False, max_tokens=10) == []


def test_the_next_token_has_the_distribution_of_a_plain_forward_pass(engine):
    prompts = [engine.encode_prompt(each.prompt, chat=False) for each in REQUESTS]
    session = engine.open(prompts, seeds=[0] * 4, max_tokens=300)
    found = session.next_logprobs([2, 0, 1])
    session.extend([1, 2], [[5], [6, 7]])
    again = session.next_logprobs([1, 2])
    rows = [prompts[2], prompts[0], prompts[1], [*prompts[1], 5], [*prompts[2], 6, 7]]
    for got, row in zip([*found, *again], rows, strict=True):
        with torch.no_grad():
            expected = engine.model(torch.tensor([row])).logits[0, -1].log_softmax(-1).numpy()
        np.testing.assert_allclose(got, expected, atol=1e-4)
    with pytest.raises(ValueError, match="extended since they were asked"):
        session.next_logprobs([1])

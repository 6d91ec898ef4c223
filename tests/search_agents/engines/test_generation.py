"""Texts outside sessions: the same tokens, whatever they are batched with and however the batches are cut."""

import numpy as np
import pytest
import torch
from search_agents.engines.base import GenerationRequest, SamplingParams
from search_agents.engines.generation import generate_in_sessions
from search_agents.engines.scripted import ScriptedEngine, ScriptedSession
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
        np.testing.assert_allclose(got, expected, rtol=2e-5, atol=1e-4)
    with pytest.raises(ValueError, match="extended since they were asked"):
        session.next_logprobs([1])


def test_texts_come_batch_by_batch_and_those_without_room_at_once(engine, monkeypatch):
    opened = []
    open_session = TransformersEngine.open
    monkeypatch.setattr(
        TransformersEngine, "open", lambda *given, **named: opened.append(1) or open_session(*given, **named)
    )
    small = TransformersEngine(engine.model, engine.tokenizer, cache_tokens=1)
    room = len(engine.encode_prompt(REQUESTS[1].prompt, chat=False))
    came = [(index, len(opened)) for index, _ in small.generate_each(REQUESTS, chat=False, max_tokens=room)]
    assert came[0] == (1, 0) and {index for index, _ in came} == set(range(4))
    assert [batches for _, batches in came] == [0, 1, 2, 3]


def test_an_asynchronous_engine_hands_out_each_text_as_it_ends():
    engine = ScriptedEngine({"one": ["1"], "two": ["2"], "three": ["3"]})
    ended = []
    step = ScriptedSession.step

    def stepping(session):
        ended.append(1)
        return step(session)

    asked = [GenerationRequest(prompt=Prompt(user=name), sampling=SamplingParams()) for name in ("one", "two", "three")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScriptedSession, "step", stepping)
        came = [
            (asked[index].prompt.user, completion.text, len(ended))
            for index, completion in generate_in_sessions(
                engine, asked, chat=False, max_tokens=99, cache_tokens=999_999
            )
        ]
    assert came == [("three", "3", 1), ("one", "1", 2), ("two", "2", 3)], "the longest first"

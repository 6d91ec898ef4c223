"""Run by `make test-vllm`, in an environment of its own: see the Makefile."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from search_agents.engines.base import Capability, FinishReason, GenerationRequest, SamplingParams, ScoringRequest
from search_agents.engines.transformers import TransformersEngine
from search_agents.models import SHIPPED
from search_agents.rollout import Task, collect, collect_async

from search_env import SearchQAVectorEnv
from search_env.errors import ModelError
from search_env.types import Prompt

pytest.importorskip("vllm")
# Two of its processes would each want a memory node of their own; read once, by the first engine.
os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")

from search_agents.engines.vllm import VLLMEngine

TINY = SHIPPED["tiny"]
STOP = ("<end_of_query>", "</answer>")
GREEDY = SamplingParams(temperature=0.0, max_tokens=40, stop=STOP)
SAMPLED = SamplingParams(temperature=0.7, max_tokens=40, stop=STOP)


@pytest.fixture(scope="module")
def engine() -> VLLMEngine:
    return VLLMEngine(TINY, dtype="float32", kv_cache_gb=0.25)


@pytest.fixture(scope="module")
def reference() -> TransformersEngine:
    return TransformersEngine.from_pretrained(TINY, dtype="float32")


@pytest.fixture(scope="module")
def env() -> SearchQAVectorEnv:
    return SearchQAVectorEnv(6, dataset="fictional-wiki", split="test", prompt="bare")


def prompts(engine: Any, env: SearchQAVectorEnv, count: int) -> list[list[int]]:
    words = (env.rules.dialect.prompt(question.text, env.rules.style) for question in env.dataset.questions[:count])
    return [engine.encode_prompt(prompt, chat=False) for prompt in words]


def play(engine: Any, openings: Sequence[list[int]], params: SamplingParams) -> list[Any]:
    """Two turns with an observation between them: the segments, and all ids of each row."""
    session = engine.open(openings, seeds=range(len(openings)), max_tokens=400)
    rows = range(len(openings))
    first = session.sample(rows, params)
    read = [engine.encode_observation(f"\n\nDocument {row} tells of nothing. " * (1 + row)) for row in rows]
    session.extend(rows, read)
    second = session.sample(rows, params)
    ids = [
        [*opening, *one.token_ids, *text, *two.token_ids]
        for opening, one, text, two in zip(openings, first, read, second, strict=True)
    ]
    return [first, second, ids]


def test_it_says_greedily_what_the_transformers_engine_says(
    engine: VLLMEngine, reference: TransformersEngine, env: SearchQAVectorEnv
) -> None:
    openings = prompts(reference, env, 6)
    assert prompts(engine, env, 6) == openings
    ours, theirs = play(engine, openings, GREEDY), play(reference, openings, GREEDY)
    for segments, expected in zip(ours[:2], theirs[:2], strict=True):
        assert [segment.token_ids for segment in segments] == [segment.token_ids for segment in expected]
        assert [segment.text for segment in segments] == [segment.text for segment in expected]
        assert [segment.finish for segment in segments] == [segment.finish for segment in expected]
        for segment, other in zip(segments, expected, strict=True):
            assert segment.logprobs == pytest.approx(other.logprobs, abs=1e-3)
    assert {segment.finish for segments in ours[:2] for segment in segments} >= {FinishReason.STOP}


@pytest.mark.parametrize("temperature", [1.0, 0.7, 1.5])
def test_logprobs_are_those_of_the_distribution_that_was_drawn_from(
    engine: VLLMEngine, reference: TransformersEngine, env: SearchQAVectorEnv, temperature: float
) -> None:
    params = SamplingParams(temperature=temperature, max_tokens=30, stop=STOP)
    first, second, rows = play(engine, prompts(engine, env, 4), params)
    for opening, one, two, ids in zip(prompts(engine, env, 4), first, second, rows, strict=True):
        with torch.no_grad():
            logits = reference.model(torch.tensor([ids])).logits[0, :-1].float() / temperature
        expected = logits.log_softmax(-1).gather(-1, torch.tensor(ids[1:]).unsqueeze(-1)).squeeze(-1).tolist()
        start = len(opening) - 1
        assert one.logprobs == pytest.approx(expected[start : start + len(one.token_ids)], abs=1e-3)
        assert two.logprobs == pytest.approx(expected[len(ids) - 1 - len(two.token_ids) :], abs=1e-3)


def test_a_row_draws_the_same_alone_and_in_company_and_another_seed_draws_another(
    engine: VLLMEngine, env: SearchQAVectorEnv
) -> None:
    openings = prompts(engine, env, 4)
    together = engine.open(openings, seeds=[7, 8, 9, 2**64 - 1], max_tokens=300).sample([3, 0, 2, 1], SAMPLED)
    alone = engine.open(openings[3:], seeds=[2**64 - 1], max_tokens=300).sample([0], SAMPLED)
    assert alone[0].token_ids == together[0].token_ids
    hot = SamplingParams(temperature=1.5, max_tokens=20)
    same_prompt = engine.open([openings[0]] * 3, seeds=[1, 2, 1], max_tokens=300).sample([0, 1, 2], hot)
    assert same_prompt[0] == same_prompt[2] != same_prompt[1]


def test_a_segment_ends_at_its_budget_or_where_the_row_is_full(engine: VLLMEngine, env: SearchQAVectorEnv) -> None:
    (opening,) = prompts(engine, env, 1)
    session = engine.open([opening], seeds=[0], max_tokens=len(opening) + 7)
    (segment,) = session.sample([0], SamplingParams(temperature=0.0, max_tokens=4))
    assert (len(segment.token_ids), segment.finish, session.room(0)) == (4, FinishReason.LENGTH, 3)
    (segment,) = session.sample([0], SamplingParams(temperature=0.0, max_tokens=4))
    assert (len(segment.token_ids), segment.finish, session.room(0)) == (3, FinishReason.LENGTH, 0)
    with pytest.raises(ValueError, match="no room"):
        session.sample([0], GREEDY)
    with pytest.raises(ValueError, match="was given 1"):
        session.extend([0], [[5]])


def test_the_end_of_sequence_ends_a_segment_and_is_one_of_its_tokens(
    engine: VLLMEngine, env: SearchQAVectorEnv, monkeypatch: pytest.MonkeyPatch
) -> None:
    openings = prompts(engine, env, 1)
    (segment,) = engine.open(openings, seeds=[0], max_tokens=300).sample([0], GREEDY)
    end = segment.token_ids[3]
    monkeypatch.setattr(engine.codec, "eos_ids", frozenset({end}))
    monkeypatch.setattr(engine.codec, "may_end", engine.codec._may_end)
    (cut,) = engine.open(openings, seeds=[0], max_tokens=300).sample([0], GREEDY)
    length = segment.token_ids.index(end) + 1
    assert (cut.token_ids, cut.finish) == (segment.token_ids[:length], FinishReason.EOS)
    assert cut.text == engine.codec.decode(segment.token_ids[: length - 1])


def test_a_session_that_is_closed_leaves_the_engine_to_others(engine: VLLMEngine, env: SearchQAVectorEnv) -> None:
    openings = prompts(engine, env, 2)
    (expected,) = engine.open(openings[:1], seeds=[0], max_tokens=300).sample([0], GREEDY)
    left = engine.open(openings, seeds=[0, 1], max_tokens=300)
    left.begin(0, GREEDY)
    left.begin(1, GREEDY)
    assert left.step() == []
    with pytest.raises(ModelError, match="while segments are sampled"):
        engine.update_weights([])
    # Two sessions share the steps, and each gets its own tokens.
    assert engine.open(openings[:1], seeds=[0], max_tokens=300).sample([0], GREEDY) == [expected]
    left.close()
    assert len(engine._requests) == 0 and not engine._llm.has_unfinished_requests()


def test_scores_are_those_of_the_transformers_engine(engine: VLLMEngine, reference: TransformersEngine) -> None:
    requests = [
        ScoringRequest(context="Question: who wrote it?", text=" The answer is a long one, and nobody knows it."),
        ScoringRequest(context="", text="Once more."),
        ScoringRequest(context="So", text=" it"),
    ]
    for ours, theirs in zip(engine.score(requests), reference.score(requests), strict=True):
        assert (ours.tokens, ours.context_tokens) == (theirs.tokens, theirs.context_tokens)
        # Far from what the model was trained on, float32 itself is no closer to float64.
        assert ours.logprobs == pytest.approx(theirs.logprobs, abs=3e-3)
    assert engine.score([ScoringRequest(context="So " * engine.max_context, text=" it")]) == [None]
    with pytest.raises(ModelError, match="empty text"):
        engine.score([ScoringRequest(context="So", text="")])


def test_the_distribution_of_the_next_token_is_that_of_the_transformers_engine(
    engine: VLLMEngine, reference: TransformersEngine, env: SearchQAVectorEnv
) -> None:
    openings = prompts(engine, env, 3)
    ours = engine.open(openings, seeds=[0] * 3, max_tokens=200).next_logprobs([2, 0])
    theirs = reference.open(openings, seeds=[0] * 3, max_tokens=200).next_logprobs([2, 0])
    assert ours.shape == theirs.shape
    likely = theirs > -12
    assert ours[likely] == pytest.approx(theirs[likely], abs=1e-3)
    assert np.exp(ours.astype(np.float64)).sum(axis=1) == pytest.approx([1.0, 1.0], abs=1e-5)


def test_texts_are_generated_outside_sessions_too(engine: VLLMEngine, reference: TransformersEngine) -> None:
    requests = [
        GenerationRequest(prompt=Prompt(user="Question: What is Oslo?\n"), sampling=GREEDY),
        GenerationRequest(prompt=Prompt(user="word " * 900), sampling=GREEDY),
        GenerationRequest(prompt=Prompt(user="Question: Who?\n"), sampling=SamplingParams(temperature=0, max_tokens=5)),
    ]
    ours = engine.generate(requests, chat=False, max_tokens=500)
    theirs = reference.generate(requests, chat=False, max_tokens=500)
    assert ours[1] is theirs[1] is None
    for one, other in ((ours[0], theirs[0]), (ours[2], theirs[2])):
        assert one is not None and other is not None
        assert (one.text, one.finish, one.prompt_tokens) == (other.text, other.finish, other.prompt_tokens)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_asynchronous_episodes_are_those_played_in_turns(
    engine: VLLMEngine, env: SearchQAVectorEnv, temperature: float
) -> None:
    tasks = [Task(number, number // 2, seed=number) for number in range(14)]
    settings: dict[str, Any] = {
        "sampling": SamplingParams(temperature=temperature, max_tokens=64),
        "max_tokens": 500,
        "chat": False,
        "prefill": env.rules.dialect.query.open,
    }
    in_turns = collect(engine, env, tasks, **settings)
    apart = collect_async(engine, env, tasks, **settings)
    assert [each.token_ids.tolist() for each in apart] == [each.token_ids.tolist() for each in in_turns]
    for ours, theirs in zip(apart, in_turns, strict=True):
        assert ours.action_mask.tolist() == theirs.action_mask.tolist()
        assert ours.logprobs == pytest.approx(theirs.logprobs, abs=1e-3)
        assert ours.transcript == theirs.transcript
        assert (ours.reward, ours.stop_reason, ours.metrics) == (theirs.reward, theirs.stop_reason, theirs.metrics)
    assert all(each.metrics["searches"] for each in apart)


def test_after_an_update_it_is_an_engine_with_the_new_weights(tmp_path: Any, env: SearchQAVectorEnv) -> None:
    before = TransformersEngine.from_pretrained(TINY, dtype="float32")
    changed = TransformersEngine.from_pretrained(TINY, dtype="float32")
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in changed.model.parameters():
            parameter.add_(torch.randn_like(parameter) * parameter.std() * 0.2)
    changed.model.save_pretrained(tmp_path)
    changed.tokenizer.save_pretrained(tmp_path)
    openings = prompts(changed, env, 4)
    updated, fresh = (VLLMEngine(path, dtype="float32", kv_cache_gb=0.1) for path in (TINY, tmp_path))
    old = play(updated, openings, GREEDY)  # fills the prefix cache with what must be forgotten
    updated.update_weights(changed.model.named_parameters())
    for params in (GREEDY, SAMPLED):
        assert play(updated, openings, params) == play(fresh, openings, params)  # log-probs included, to the last bit
    new = play(updated, openings, GREEDY)
    assert new[2] == play(changed, openings, GREEDY)[2] != old[2]
    del fresh  # which is nothing to the others
    updated.update_weights(before.model.named_parameters())
    assert play(updated, openings, GREEDY) == old


def test_spread_over_two_processes_it_is_the_same_engine_and_takes_new_weights_in_place(
    reference: TransformersEngine, env: SearchQAVectorEnv
) -> None:
    spread = VLLMEngine(TINY, dtype="float32", kv_cache_gb=0.1, max_context=512, tensor_parallel_size=2)
    openings = prompts(reference, env, 3)
    old = play(spread, openings, GREEDY)
    assert old[2] == play(reference, openings, GREEDY)[2]
    changed = TransformersEngine.from_pretrained(TINY, dtype="float32")
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in changed.model.parameters():
            parameter.add_(torch.randn_like(parameter) * parameter.std() * 0.2)
    spread.update_weights(changed.model.named_parameters())
    assert play(spread, openings, GREEDY)[2] == play(changed, openings, GREEDY)[2] != old[2]


def test_it_leaves_the_process_as_it_found_it() -> None:
    threads, state, environment = torch.get_num_threads(), random.getstate(), dict(os.environ)
    drawn, numpy_state = torch.get_rng_state(), np.random.get_state()[1]
    VLLMEngine(TINY, dtype="float32", kv_cache_gb=0.1, max_context=256)
    assert torch.get_num_threads() == threads and random.getstate() == state
    assert torch.equal(torch.get_rng_state(), drawn) and (np.random.get_state()[1] == numpy_state).all()
    added = {name for name in os.environ if os.environ[name] != environment.get(name)}
    assert all(name.startswith("VLLM_") for name in added)
    torch.set_num_threads(threads)  # and it can still be set
    assert torch.set_num_threads.__module__ != "vllm.v1.worker.cpu_worker"


def test_what_it_cannot_run_is_said_in_one_message(tmp_path: Any) -> None:
    with pytest.raises(ModelError, match="no model folder"):
        VLLMEngine(tmp_path / "none")
    with pytest.raises(ModelError, match="Lower max_context"):
        VLLMEngine(TINY, max_context=1 << 20)


def test_it_claims_everything(engine: VLLMEngine) -> None:
    assert engine.capabilities == frozenset(Capability) and engine.name == TINY.name

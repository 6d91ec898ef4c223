from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from search_agents.engines.base import FinishReason, SampledSegment, SamplingParams, ScoringRequest
from search_agents.engines.transformers import TransformersEngine

from search_env.errors import ConfigError, ModelError

STOP = ("e", "a the", "</answer>")
FAMILIES = ["llama", "qwen2"]


class Conversation:
    """Ragged rows over several turns, with all that each row has read and written."""

    def __init__(self, engine: TransformersEngine, prompts: Sequence[list[int]], seeds: Sequence[int], room: int = 300):
        self.session = engine.open(prompts, seeds=seeds, max_tokens=room)
        self.ids = [list(prompt) for prompt in prompts]
        self.logprobs: list[list[float | None]] = [[None] * len(prompt) for prompt in prompts]

    def sample(self, rows: Sequence[int], params: SamplingParams) -> list[SampledSegment]:
        segments = self.session.sample(rows, params)
        for row, segment in zip(rows, segments, strict=True):
            self.ids[row] += segment.token_ids
            self.logprobs[row] += segment.logprobs
        return segments

    def extend(self, rows: Sequence[int], token_ids: Sequence[list[int]]) -> None:
        self.session.extend(rows, token_ids)
        for row, ids in zip(rows, token_ids, strict=True):
            self.ids[row] += ids
            self.logprobs[row] += [None] * len(ids)


def ragged(count: int, low: int, high: int, seed: int) -> list[list[int]]:
    rng = np.random.default_rng(seed)
    return [rng.integers(3, 250, rng.integers(low, high)).tolist() for _ in range(count)]


def play(engine: TransformersEngine, *, temperature: float, rows: int = 6, seed: int = 0) -> Conversation:
    """Four turns of different rows in different orders, observations from none to 60 tokens."""
    rng = np.random.default_rng(seed)
    talk = Conversation(engine, ragged(rows, 1, 120, seed), range(rows))
    for turn in range(4):
        who = rng.permutation(rows)[: rng.integers(2, rows + 1)].tolist()
        params = SamplingParams(temperature=temperature, max_tokens=int(rng.integers(1, 25)), stop=STOP)
        talk.sample(who, params)
        talk.extend(who, ragged(len(who), 0, 60, turn))
    return talk


def teacher_forced(model: Any, ids: Sequence[int], temperature: float) -> torch.Tensor:
    """Log-probs of every next token by one forward pass without cache, [tokens - 1, vocab_size]."""
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0, :-1].float()
    return (logits / (temperature or 1.0)).log_softmax(-1)


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("temperature", [0.0, 1.0, 0.6])
def test_several_ragged_turns_equal_one_forward_pass_over_the_concatenated_ids(
    tokenizer: Any, make_model: Callable[..., Any], kind: str, temperature: float
) -> None:
    model = make_model(kind)
    talk = play(TransformersEngine(model, tokenizer, prefill_tokens=50), temperature=temperature)
    checked = 0
    for ids, logprobs in zip(talk.ids, talk.logprobs, strict=True):
        expected = teacher_forced(model, ids, temperature)
        for position, logprob in enumerate(logprobs):
            if logprob is not None:
                assert logprob == pytest.approx(expected[position - 1, ids[position]].item(), abs=1e-4)
                assert temperature > 0 or ids[position] == expected[position - 1].argmax().item()
                checked += 1
    assert checked > 40


def test_a_row_draws_the_same_tokens_alone_and_in_any_company(tokenizer: Any, make_model: Callable[..., Any]) -> None:
    engine = TransformersEngine(make_model(), tokenizer)
    prompts, observations = ragged(8, 5, 60, seed=1), ragged(8, 0, 40, seed=2)
    params = SamplingParams(max_tokens=15, stop=STOP)

    def two_turns(rows: Sequence[int]) -> dict[int, list[int]]:
        talk = Conversation(engine, [prompts[row] for row in rows], [100 + row for row in rows])
        everyone = range(len(rows))
        talk.sample(everyone, params)
        talk.extend(everyone, [observations[row] for row in rows])
        talk.sample(everyone, params)
        return dict(zip(rows, talk.ids, strict=True))

    together = two_turns(range(8))
    for company in ([3], [5, 3, 0], [7, 6, 5, 4, 3, 2, 1, 0]):
        for row, ids in two_turns(company).items():
            assert ids == together[row]


def test_sampling_in_two_goes_draws_what_one_go_draws(tokenizer: Any, make_model: Callable[..., Any]) -> None:
    engine = TransformersEngine(make_model(), tokenizer)
    prompts = ragged(3, 5, 30, seed=3)
    whole, halves = Conversation(engine, prompts, range(3)), Conversation(engine, prompts, range(3))
    engine.codec.eos_ids = frozenset()
    whole.sample(range(3), SamplingParams(max_tokens=10))
    halves.sample([2, 0, 1], SamplingParams(max_tokens=4))
    halves.sample([1, 2, 0], SamplingParams(max_tokens=6))
    assert halves.ids == whole.ids


def test_the_pieces_in_which_prompts_are_computed_change_nothing(
    tokenizer: Any, make_model: Callable[..., Any]
) -> None:
    model = make_model()
    whole = play(TransformersEngine(model, tokenizer, prefill_tokens=10_000), temperature=1.0)
    pieces = play(TransformersEngine(model, tokenizer, prefill_tokens=7), temperature=1.0)
    assert pieces.ids == whole.ids


def test_a_pass_over_prompts_never_exceeds_its_budget_of_tokens(tokenizer: Any, make_model: Callable[..., Any]) -> None:
    model = make_model()
    sizes = []
    model.register_forward_pre_hook(lambda _, args, kwargs: sizes.append(kwargs["input_ids"].numel()), with_kwargs=True)
    play(TransformersEngine(model, tokenizer, prefill_tokens=64), temperature=1.0)
    assert max(sizes) <= 64 and len(sizes) > 10


def test_a_turn_computes_its_new_tokens_only(tokenizer: Any, make_model: Callable[..., Any]) -> None:
    model = make_model()
    seen: list[int] = []
    engine = TransformersEngine(model, tokenizer)
    engine.codec.eos_ids = frozenset()
    talk = Conversation(engine, [[5] * 40], [0])
    model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.extend(kwargs["input_ids"].flatten().tolist()), with_kwargs=True
    )
    talk.sample([0], SamplingParams(max_tokens=3))
    talk.extend([0], [[7, 8]])
    talk.sample([0], SamplingParams(max_tokens=1))
    assert seen == talk.ids[0][:-1]  # each token once, in order; the last one is not needed yet


def test_rows_that_have_ended_leave_the_batch(tokenizer: Any, make_model: Callable[..., Any]) -> None:
    model = make_model()
    batches: list[int] = []
    engine = TransformersEngine(model, tokenizer)
    talk = Conversation(engine, ragged(6, 5, 9, seed=4), range(6), room=30)
    model.register_forward_pre_hook(lambda _, args, kwargs: batches.append(len(kwargs["input_ids"])), with_kwargs=True)
    segments = talk.sample(range(6), SamplingParams(max_tokens=20, stop=("e", "t", "n")))
    lengths = [len(segment.token_ids) for segment in segments]
    assert len(set(lengths)) > 1
    # One pass over the prompts, then one row for each token that another token follows, and few that rest.
    writing = [sum(length > step for length in lengths) for step in range(1, max(lengths))]
    assert len(batches) == 1 + len(writing) and batches[-1] < 6
    assert all(rows <= batch <= rows / 0.7 for rows, batch in zip(writing, batches[1:], strict=True))


def test_a_segment_says_why_it_ended(tokenizer: Any, make_model: Callable[..., Any]) -> None:
    def only(text: str) -> Conversation:
        boosts = {tokenizer.convert_tokens_to_ids(text): 1000.0}
        return Conversation(TransformersEngine(make_model(boosts=boosts), tokenizer), [[5, 6]], [0], room=10)

    params = SamplingParams(max_tokens=4, stop=("</answer>",))
    (stopped,) = only("</answer>").sample([0], params)
    assert (stopped.finish, stopped.text, len(stopped.token_ids)) == (FinishReason.STOP, "</answer>", 1)
    (ended,) = only("<|endoftext|>").sample([0], params)
    assert (ended.finish, ended.text, ended.token_ids) == (FinishReason.EOS, "", [tokenizer.eos_token_id])
    endless = only("n")
    (long,) = endless.sample([0], params)
    assert (long.finish, long.text, endless.session.room(0)) == (FinishReason.LENGTH, "nnnn", 4)
    (last,) = endless.sample([0], SamplingParams(max_tokens=100))
    assert (last.finish, last.text, endless.session.room(0)) == (FinishReason.LENGTH, "nnnn", 0)


def test_a_row_without_room_cannot_be_sampled_or_extended(tokenizer: Any, make_model: Callable[..., Any]) -> None:
    session = TransformersEngine(make_model(), tokenizer).open([[5, 6]], seeds=[0], max_tokens=4)
    with pytest.raises(ValueError, match="room for 2 tokens and was given 3"):
        session.extend([0], [[1, 2, 3]])
    session.extend([0], [[1, 2]])
    with pytest.raises(ValueError, match="room"):
        session.sample([0], SamplingParams())


def test_the_same_row_twice_is_refused(tokenizer: Any, make_model: Callable[..., Any]) -> None:
    session = TransformersEngine(make_model(), tokenizer).open([[5]], seeds=[0], max_tokens=9)
    with pytest.raises(ValueError, match="sampling already"):
        session.sample([0, 0], SamplingParams())
    assert session.sample([], SamplingParams()) == []


@pytest.mark.parametrize(
    ("prompts", "max_tokens", "problem"),
    [
        ([[5], []], 10, "prompt 1 has 0 tokens"),
        ([[5] * 10], 10, "prompt 0 has 10 tokens"),
        ([[5]], 513, "513 an episode exceeds the model's context of 512"),
    ],
)
def test_prompts_that_do_not_fit_are_refused(
    tokenizer: Any, make_model: Callable[..., Any], prompts: list[list[int]], max_tokens: int, problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        TransformersEngine(make_model(), tokenizer).open(prompts, seeds=[0] * len(prompts), max_tokens=max_tokens)


def test_a_shared_model_is_left_as_it_was_found(tokenizer: Any, make_model: Callable[..., Any]) -> None:
    model = make_model(attention_dropout=0.5).train()
    before = model.config._attn_implementation
    session = TransformersEngine(model, tokenizer).open([[5, 6]], seeds=[0], max_tokens=20)
    session.sample([0], SamplingParams(max_tokens=5))
    assert model.training and model.config._attn_implementation == before
    model(torch.tensor([[5, 6, 7]])).logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_new_weights_count_from_the_next_session_on(tokenizer: Any, make_model: Callable[..., Any]) -> None:
    model, other = make_model(seed=0), make_model(seed=1)
    engine, params = TransformersEngine(model, tokenizer), SamplingParams(temperature=0.0, max_tokens=8)
    before = engine.open([[5, 6]], seeds=[0], max_tokens=20).sample([0], params)
    model.load_state_dict(other.state_dict())
    after = engine.open([[5, 6]], seeds=[0], max_tokens=20).sample([0], params)
    expected = TransformersEngine(other, tokenizer).open([[5, 6]], seeds=[0], max_tokens=20).sample([0], params)
    assert after == expected != before


def test_bfloat16_logprobs_are_close_to_those_of_one_forward_pass(
    tokenizer: Any, make_model: Callable[..., Any]
) -> None:
    model = make_model(initializer_range=0.1).to(torch.bfloat16)
    talk = play(TransformersEngine(model, tokenizer), temperature=1.0)
    for ids, logprobs in zip(talk.ids, talk.logprobs, strict=True):
        expected = teacher_forced(model, ids, 1.0)
        found = [(position, value) for position, value in enumerate(logprobs) if value is not None]
        for position, value in found:
            assert value == pytest.approx(expected[position - 1, ids[position]].item(), abs=0.1)


def test_autocast_samples_from_the_distribution_of_a_forward_pass_in_autocast(
    tokenizer: Any, make_model: Callable[..., Any]
) -> None:
    model = make_model(initializer_range=0.1)
    talk = play(TransformersEngine(model, tokenizer, autocast=True), temperature=1.0)
    exact, gaps = [], []
    for ids, logprobs in zip(talk.ids, talk.logprobs, strict=True):
        with torch.autocast("cpu", torch.bfloat16):
            expected = teacher_forced(model, ids, 1.0)
        found = [(position, value) for position, value in enumerate(logprobs) if value is not None]
        gaps += [abs(value - expected[position - 1, ids[position]].item()) for position, value in found]
        full = teacher_forced(model, ids, 1.0)
        exact += [value - full[position - 1, ids[position]].item() for position, value in found]
    assert max(gaps) < 0.05
    assert max(map(abs, exact)) > 1e-4  # it does compute in bfloat16
    assert all(parameter.dtype is torch.float32 for parameter in model.parameters())


def test_eager_attention_gives_the_same_tokens(tokenizer: Any, make_model: Callable[..., Any]) -> None:
    model = make_model()
    expected = play(TransformersEngine(model, tokenizer), temperature=1.0).ids
    model.set_attn_implementation("eager")
    assert play(TransformersEngine(model, tokenizer), temperature=1.0).ids == expected


def test_a_sliding_window_bounds_the_context_within_which_it_hides_nothing(
    tokenizer: Any, make_model: Callable[..., Any]
) -> None:
    sliding = make_model("qwen2", use_sliding_window=True, sliding_window=64, max_window_layers=1)
    assert sliding.config.layer_types == ["full_attention", "sliding_attention"]
    assert TransformersEngine(sliding, tokenizer).max_context == 64
    assert TransformersEngine(make_model("qwen2"), tokenizer).max_context == 512


def test_attention_kernels_without_a_mask_of_their_own_are_refused(
    tokenizer: Any, make_model: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model()
    monkeypatch.setattr(model.config, "_attn_implementation_internal", "flash_attention_2")
    with pytest.raises(ModelError, match=r"'flash_attention_2'.*attn_implementation='sdpa'"):
        TransformersEngine(model, tokenizer)


def test_end_ids_come_from_the_generation_config_and_the_tokenizer(
    tokenizer: Any, make_model: Callable[..., Any]
) -> None:
    model = make_model()
    other = tokenizer.convert_tokens_to_ids("<|im_end|>")
    model.generation_config.eos_token_id = [other]
    assert TransformersEngine(model, tokenizer).codec.eos_ids == {other, tokenizer.eos_token_id}


def test_a_text_scores_the_same_alone_and_beside_longer_ones(tokenizer: Any, make_model: Callable[..., Any]) -> None:
    engine = TransformersEngine(make_model(), tokenizer)
    requests = [
        ScoringRequest(context="the capital of " * length, text="Norway is Oslo " * (1 + length % 3))
        for length in (0, 1, 9, 4)
    ]
    together = engine.score(requests)
    for request, scored in zip(requests, together, strict=True):
        (alone,) = engine.score([request])
        assert scored.logprobs == pytest.approx(alone.logprobs, abs=1e-4)

"""What begins alike is computed once, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from search_agents.engines.base import GenerationRequest, SamplingParams
from search_agents.engines.prefixes import Kept, PrefixCache, shared_beginnings
from search_agents.engines.transformers import TransformersEngine

from search_env.types import Prompt

SYSTEM = list(range(100, 160))


def kept(ids: list[int]) -> Kept:
    return Kept(tuple(ids), [(torch.zeros(1, len(ids), 2), torch.zeros(1, len(ids), 2))])  # 16 bytes a token


def computed(model: Any) -> list[int]:
    """The ids that the model reads from now on, padding left out."""
    seen: list[int] = []

    def record(_: Any, args: Any, kwargs: Any) -> None:
        hidden = kwargs["attention_mask"][:, 0, :, 0] < 0  # nothing hides position 0 from a token
        seen.extend(kwargs["input_ids"][~hidden].tolist())

    model.register_forward_pre_hook(record, with_kwargs=True)
    return seen


def test_rows_of_one_prompt_take_it_from_the_first_of_them() -> None:
    plan = shared_beginnings([SYSTEM] * 3, [0] * 3)
    assert plan == [(0, 0, 0), (1, 0, 59), (1, 0, 59)]  # the last token is left, for its logits


def test_a_beginning_of_a_beginning_makes_a_wave_of_its_own() -> None:
    a, b = [1] * 40, [2] * 40
    plan = shared_beginnings([[*SYSTEM, *b, 9], [*SYSTEM, *a, 7], [*SYSTEM, *b, 8], [*SYSTEM, *a, 8]], [0] * 4)
    assert plan == [(2, 2, 100), (0, 1, 0), (1, 1, 60), (1, 1, 100)]


def test_a_few_shared_tokens_are_computed_again() -> None:
    assert shared_beginnings([[1] * 20, [1] * 30], [0, 0]) == [(0, 0, 0), (0, 1, 0)]
    # Row 2 shares 10 tokens more with row 1 than with row 0: not worth a wave.
    rows = [[*SYSTEM, 1], [*SYSTEM, *[2] * 10, 3], [*SYSTEM, *[2] * 10, 4]]
    assert [wave for wave, _, _ in shared_beginnings(rows, [0] * 3)] == [0, 1, 1]


def test_what_a_row_has_already_is_not_taken_again() -> None:
    rows = [[*SYSTEM, 1], [*SYSTEM, 2]]
    assert shared_beginnings(rows, [48, 48]) == [(0, 0, 48), (0, 1, 48)]
    assert shared_beginnings(rows, [0, 16]) == [(0, 0, 0), (1, 0, 60)]


@pytest.mark.parametrize("seed", range(20))
def test_every_source_has_what_is_taken_from_it_by_then(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = [[1]]
    for _ in range(40):  # each row goes on from a beginning of an earlier one
        begun = rows[rng.integers(len(rows))]
        rows.append([*begun[: rng.integers(1, len(begun) + 1)], *rng.integers(0, 2, rng.integers(1, 80)).tolist()])
    plan = shared_beginnings(rows, [0] * len(rows))
    for row, (wave, source, length) in zip(rows, plan, strict=True):
        assert length < len(row) and row[:length] == rows[source][:length]
        assert (plan[source].wave < wave) if wave else length == 0
    assert sum(length for _, _, length in plan) > 0


def test_the_longest_beginning_of_whole_blocks_is_found() -> None:
    cache = PrefixCache(1 << 20)
    text = kept(SYSTEM)
    cache.add(text)
    assert cache.longest([*SYSTEM, 1]) == (text, 48)
    assert cache.longest(SYSTEM[:48]) == (text, 32)  # the last token is never among them
    assert cache.longest(SYSTEM[:10]) == (None, 0)
    assert cache.longest([0, *SYSTEM]) == (None, 0)


def test_a_text_that_goes_on_from_a_kept_one_takes_its_place() -> None:
    cache = PrefixCache(16 * 110)  # room for 110 tokens: not for both
    longer = kept([*SYSTEM, *[1] * 40])
    cache.add(kept(SYSTEM))
    cache.add(longer)
    assert cache.longest([*SYSTEM, *[1] * 40, 5]) == (longer, 96)
    assert cache.longest([*SYSTEM, 5]) == (longer, 48)


def test_what_was_not_used_for_the_longest_time_goes_first() -> None:
    cache = PrefixCache(16 * 100)
    first, second, third = kept([1] * 40), kept([2] * 40), kept([3] * 40)
    cache.add(first)
    cache.add(second)
    assert cache.longest([1] * 40)[0] is first
    cache.add(third)
    assert [cache.longest([number] * 40)[0] for number in (1, 2, 3)] == [first, None, third]
    cache.add(kept([4] * 101))  # more than there is room for: nothing is thrown away for it
    assert cache.longest([1] * 40)[0] is first
    cache.clear()
    assert cache.longest([1] * 40) == (None, 0)


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_rows_opened_together_compute_what_they_share_once(
    family: str, tokenizer: Any, make_model: Callable[..., Any]
) -> None:
    model = make_model(family)
    engine, params = TransformersEngine(model, tokenizer), SamplingParams(max_tokens=6)
    engine.codec.eos_ids = frozenset()
    prompts = [[*SYSTEM, 5, 6], [*SYSTEM, 7], [9, 9], [*SYSTEM, 5, 6]]
    alone = [engine.open([each], seeds=[row], max_tokens=90).sample([0], params)[0] for row, each in enumerate(prompts)]
    seen = computed(model)
    session = engine.open(prompts, seeds=range(4), max_tokens=90)
    together = [*session.sample([0, 2], params), *session.sample([3, 1], params)]
    for one, other in zip(together, [alone[0], alone[2], alone[3], alone[1]], strict=True):
        assert one.token_ids == other.token_ids
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-4)
    # Rows 3 and 1 are sampled later than row 0, and take from it what it has read.
    assert seen.count(130) == 1


def test_a_text_begins_with_what_was_read_for_texts_before_it(tokenizer: Any, make_model: Callable[..., Any]) -> None:
    model = make_model()
    engine = TransformersEngine(model, tokenizer)
    forgetful = TransformersEngine(model, tokenizer, prefix_bytes=0)
    documents = "a the e n t " * 20
    asked = [
        [GenerationRequest(prompt=Prompt(user=documents + end), sampling=SamplingParams(max_tokens=6), seed=1)]
        for end in ("who is it", "when", "who is it")
    ]
    expected = [forgetful.generate(each, chat=False, max_tokens=400)[0] for each in asked]
    seen = computed(model)
    read, found = [], []
    for each in asked:
        before = len(seen)
        found += engine.generate(each, chat=False, max_tokens=400)
        read.append(len(seen) - before)
    for one, other in zip(found, expected, strict=True):
        assert (one.text, one.prompt_tokens) == (other.text, other.prompt_tokens)
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-4)
    assert read[0] >= found[0].prompt_tokens > 100
    assert read[1] < 60 and read[2] < 40


def test_what_other_weights_read_is_not_taken(tokenizer: Any, make_model: Callable[..., Any]) -> None:
    model, other = make_model(seed=0), make_model(seed=1)
    engine = TransformersEngine(model, tokenizer)
    asked = [GenerationRequest(prompt=Prompt(user="a the e n t " * 20), sampling=SamplingParams(temperature=0.0))]
    engine.generate(asked, chat=False, max_tokens=400)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    for change in (optimizer.step, lambda: model.load_state_dict(other.state_dict())):
        change()
        fresh = TransformersEngine(model, tokenizer).generate(asked, chat=False, max_tokens=400)
        assert engine.generate(asked, chat=False, max_tokens=400) == fresh

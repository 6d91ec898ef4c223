"""What several prompts write together, against forward passes of the shipped model that share no code with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import search_agents
import torch
from search_agents.engines.base import Completion, FinishReason, GenerationRequest, SamplingParams
from search_agents.engines.mixture import MixtureRequest, generate_mixtures, mixed_logprobs
from search_agents.engines.transformers import TransformersEngine

from search_env.errors import ConfigError
from search_env.types import Prompt

GREEDY = SamplingParams(temperature=0.0, max_tokens=12)
PROMPTS = (
    Prompt(user="Question: Who is the spouse of the performer of Green?\n<think>"),
    Prompt(user="Question: Who wrote The Silent Voyage?\n<think>I have to find out who"),
    Prompt(user="Question: Where was Ada born?\n<think>I need the place"),
)
WEIGHTS = (0.5, 0.3, 0.2)


@pytest.fixture(scope="module")
def engine() -> TransformersEngine:
    folder = Path(search_agents.__file__).parent / "models" / "fictional-wiki"
    return TransformersEngine.from_pretrained(folder, dtype="float32")


def request(
    prompts: Sequence[Prompt] = PROMPTS,
    weights: Sequence[float] = WEIGHTS,
    sampling: SamplingParams = GREEDY,
    seed: int = 0,
) -> MixtureRequest:
    return MixtureRequest(prompts=tuple(prompts), weights=tuple(weights), sampling=sampling, seed=seed)


def write(engine: TransformersEngine, *requests: MixtureRequest, **more: Any) -> list[Completion | None]:
    return generate_mixtures(engine, requests, chat=False, **{"max_tokens": 400} | more)


def distribution(engine: TransformersEngine, ids: Sequence[int]) -> np.ndarray:
    """Probabilities of the next token by a plain forward pass, float64 [vocab_size]."""
    with torch.no_grad():
        return engine.model(torch.tensor([list(ids)])).logits[0, -1].double().softmax(-1).numpy()


def independent(engine: TransformersEngine, weights: Sequence[float], steps: int) -> tuple[list[int], list[float]]:
    """Greedy tokens of the mixture and their probabilities: a plain forward pass a branch and step."""
    rows = [engine.encode_prompt(prompt, chat=False) for prompt in PROMPTS]
    tokens: list[int] = []
    found: list[float] = []
    for _ in range(steps):
        mean = sum(weight * distribution(engine, row + tokens) for weight, row in zip(weights, rows, strict=True))
        tokens.append(int(mean.argmax()))
        found.append(float(mean[tokens[-1]]))
    return tokens, found


# --- the distribution of the next token ---


def test_next_logprobs_are_those_of_a_plain_forward_pass_turn_by_turn_in_any_order(engine: TransformersEngine) -> None:
    rows = [engine.encode_prompt(prompt, chat=False) for prompt in PROMPTS]
    session = engine.open(rows, seeds=[0] * 3, max_tokens=200)
    for asked, extra in [([2, 0, 1], [[5], [17, 30, 8], [9, 9]]), ([0, 2], [[40], [41]]), ([1, 0, 2], [[3], [4], [6]])]:
        logprobs = session.next_logprobs(asked)
        assert logprobs.dtype == np.float32 and logprobs.shape == (len(asked), engine.model.config.vocab_size)
        for row, found in zip(asked, logprobs, strict=True):
            assert np.exp(found) == pytest.approx(distribution(engine, rows[row]), abs=1e-5)
        session.extend(asked, extra)
        for row, ids in zip(asked, extra, strict=True):
            rows[row] = rows[row] + ids


def test_the_distribution_after_a_sampled_segment_counts_that_segment(engine: TransformersEngine) -> None:
    prompt = engine.encode_prompt(PROMPTS[0], chat=False)
    session = engine.open([prompt], seeds=[0], max_tokens=200)
    (segment,) = session.sample([0], GREEDY)
    found = np.exp(session.next_logprobs([0])[0])
    assert found == pytest.approx(distribution(engine, prompt + segment.token_ids), abs=1e-5)


@pytest.mark.parametrize("asked", [[0], [1, 1]])
def test_a_row_is_asked_once_and_only_after_it_was_extended(engine: TransformersEngine, asked: list[int]) -> None:
    session = engine.open([[5], [6]], seeds=[0, 0], max_tokens=20)
    session.next_logprobs([0])
    with pytest.raises(ValueError, match="distinct and extended"):
        session.next_logprobs(asked)


# --- the mixture ---


def test_a_mixture_is_the_weighted_sum_of_probabilities(engine: TransformersEngine) -> None:
    rows = [engine.encode_prompt(prompt, chat=False) for prompt in PROMPTS]
    logprobs = engine.open(rows, seeds=[0] * 3, max_tokens=200).next_logprobs([0, 1, 2])
    expected = sum(weight * distribution(engine, row) for weight, row in zip(WEIGHTS, rows, strict=True))
    mixed = mixed_logprobs(logprobs, WEIGHTS)
    assert mixed.dtype == torch.float64
    assert mixed.exp().numpy() == pytest.approx(expected, abs=1e-5)
    assert mixed.exp().sum().item() == pytest.approx(1.0, abs=1e-6)
    assert not np.allclose(expected, np.mean([distribution(engine, row) for row in rows], axis=0), atol=1e-3)


def test_every_token_is_the_likeliest_of_the_mixture_and_goes_to_every_branch(engine: TransformersEngine) -> None:
    (completion,) = write(engine, request())
    tokens, probabilities = independent(engine, WEIGHTS, GREEDY.max_tokens)
    assert completion is not None and completion.tokens == GREEDY.max_tokens
    assert completion.text == engine.codec.decode(tokens)
    assert np.exp(completion.logprobs) == pytest.approx(probabilities, abs=1e-5)
    assert completion.prompt_tokens == sum(len(engine.encode_prompt(prompt, chat=False)) for prompt in PROMPTS)
    alone = {write(engine, request([prompt], [1.0]))[0].text for prompt in PROMPTS}  # type: ignore[union-attr]
    assert len(alone | {completion.text}) == 4  # no branch writes it by itself


@pytest.mark.parametrize("temperature", [0.0, 1.0, 0.7])
@pytest.mark.parametrize("stop", [(), ("e",)])
def test_one_prompt_writes_what_ordinary_generation_writes(
    engine: TransformersEngine, temperature: float, stop: tuple[str, ...]
) -> None:
    sampling = SamplingParams(temperature=temperature, max_tokens=20, stop=stop)
    for seed, prompt in enumerate(PROMPTS):
        (expected,) = engine.generate(
            [GenerationRequest(prompt=prompt, sampling=sampling, seed=seed)], chat=False, max_tokens=400
        )
        (found,) = write(engine, request([prompt], [1.0], sampling, seed))
        assert found is not None and expected is not None
        assert (found.text, found.finish, found.tokens) == (expected.text, expected.finish, expected.tokens)
        assert found.logprobs == pytest.approx(expected.logprobs, abs=1e-5)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_same_prompt_several_times_is_that_prompt(engine: TransformersEngine, temperature: float) -> None:
    sampling = SamplingParams(temperature=temperature, max_tokens=20)
    once, thrice = write(engine, request(PROMPTS[:1], [1.0], sampling), request(PROMPTS[:1] * 3, WEIGHTS, sampling))
    assert once is not None and thrice is not None
    assert thrice.text == once.text and thrice.logprobs == pytest.approx(once.logprobs, abs=1e-5)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_the_order_of_the_prompts_does_not_matter(engine: TransformersEngine, temperature: float) -> None:
    sampling = SamplingParams(temperature=temperature, max_tokens=20)
    order = (2, 0, 1)
    shuffled = request([PROMPTS[each] for each in order], [WEIGHTS[each] for each in order], sampling)
    first, second = write(engine, request(sampling=sampling), shuffled)
    assert first is not None and second is not None
    assert first.text == second.text and first.logprobs == pytest.approx(second.logprobs, abs=1e-5)


def test_a_prompt_without_weight_says_nothing(engine: TransformersEngine) -> None:
    with_it, without = write(engine, request(PROMPTS, (0.6, 0.4, 0.0)), request(PROMPTS[:2], (0.6, 0.4)))
    assert with_it is not None and without is not None
    assert with_it.text == without.text and with_it.logprobs == pytest.approx(without.logprobs, abs=1e-5)


def test_what_a_mixture_writes_depends_on_its_seed_and_on_nothing_beside_it(engine: TransformersEngine) -> None:
    sampling = SamplingParams(temperature=1.0, max_tokens=20)
    requests = [request(sampling=sampling, seed=seed) for seed in range(6)]
    requests += [request(PROMPTS[1:], (0.5, 0.5), sampling, seed=7), request(PROMPTS[:1], [1.0])]
    together = write(engine, *requests)
    assert len({each.text for each in together[:6] if each}) > 3
    for asked, expected in zip(requests, together, strict=True):
        (alone,) = write(engine, asked)
        assert alone is not None and expected is not None and alone.text == expected.text


def test_all_mixtures_share_one_session_until_the_cache_is_full(
    engine: TransformersEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []
    real = engine.open

    def watched(prompts: Any, **more: Any) -> Any:
        opened.append(len(prompts))
        return real(prompts, **more)

    monkeypatch.setattr(engine, "open", watched)
    requests = [request(seed=seed, sampling=SamplingParams(max_tokens=12)) for seed in range(3)]
    whole = write(engine, *requests)
    assert opened == [9]
    opened.clear()
    cut = write(engine, *requests, cache_tokens=300)
    assert [each.text for each in cut if each] == [each.text for each in whole if each]
    assert len(opened) == 2 and sum(opened) == 9 and all(rows % 3 == 0 for rows in opened)


def test_a_prompt_that_leaves_no_room_gives_no_text_and_a_tight_one_a_short_text(engine: TransformersEngine) -> None:
    longest = max(len(engine.encode_prompt(prompt, chat=False)) for prompt in PROMPTS)
    assert write(engine, request(), max_tokens=longest) == [None]
    (short,) = write(engine, request(), max_tokens=longest + 3)
    assert short is not None and (short.tokens, short.finish) == (3, FinishReason.LENGTH)


@pytest.mark.parametrize("weights", [(), (1.0,), (0.5, 0.5, 0.5), (1.5, -0.5, 0.0), (0.5, 0.5, float("nan"))])
def test_weights_that_are_none_are_refused(weights: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match="one weight a prompt"):
        request(weights=weights)

"""Texts that several prompts write together: each token is drawn from the weighted mean of their distributions.

The prompts are rows of one session, and whatever token is drawn is appended to all of
them. What a mixture writes depends on its own prompts, weights and seed only.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch

from search_agents.engines.base import Completion, SamplingParams, TokenEngine
from search_agents.engines.codec import TextCodec
from search_agents.engines.draft import SegmentDraft
from search_agents.engines.sampling import draw_tokens, row_uniforms
from search_env.errors import ConfigError
from search_env.types import Prompt

__all__ = ["MixtureEngine", "MixtureRequest", "generate_mixtures", "mixed_logprobs"]

CACHE_TOKENS = 65_536
"""The most tokens that one session holds, rows times the longest of them, unless one mixture alone is larger."""


class MixtureEngine(TokenEngine, Protocol):
    """An engine with `Capability.NEXT_TOKEN`."""

    codec: TextCodec
    """Finds the end of texts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MixtureRequest:
    """One text to be written by several prompts.

    Raises:
        ConfigError: If there is no prompt, or the weights do not fit.
    """

    prompts: tuple[Prompt, ...]
    weights: tuple[float, ...]
    """One a prompt, not negative; they sum to 1."""
    sampling: SamplingParams
    """The temperature is that of the mixture, whose parts are taken as the model gives them."""
    seed: int = 0

    def __post_init__(self) -> None:
        fitting = len(self.weights) == len(self.prompts) > 0 and min(self.weights) >= 0.0
        if not fitting or not math.isclose(sum(self.weights), 1.0, abs_tol=1e-6):
            raise ConfigError(
                f"the weights of {len(self.prompts)} prompts are {self.weights}; give one weight a prompt, "
                "none negative and 1 in all."
            )


def mixed_logprobs(logprobs: npt.NDArray[np.float32], weights: Sequence[float]) -> torch.Tensor:
    """The distribution of a mixture: log of the sum of weight times probability, computed in float64.

    Args:
        logprobs: Of every token by each prompt, [prompts, vocab_size].
        weights: One a prompt.

    Returns:
        Log-probabilities, float64 [vocab_size].
    """
    log_weights = torch.tensor(weights, dtype=torch.float64).log()
    return torch.logsumexp(torch.from_numpy(logprobs).double() + log_weights[:, None], dim=0)


def generate_mixtures(
    engine: MixtureEngine,
    requests: Sequence[MixtureRequest],
    *,
    chat: bool,
    max_tokens: int,
    cache_tokens: int = CACHE_TOKENS,
) -> list[Completion | None]:
    """Write a text for each request.

    Args:
        engine: Opens one session for all requests with the same sampling that fit into the cache.
        requests: They may differ in everything.
        chat: Whether system and user words go through the model's chat template.
        max_tokens: The most tokens of any one prompt and the text together.
        cache_tokens: See `CACHE_TOKENS`.

    Returns:
        One completion for each request, in that order; None where the longest prompt leaves no room for a token.
        Its log-probabilities are those of the mixture; `prompt_tokens` counts all of its prompts.
    """
    max_tokens = min(max_tokens, engine.max_context)
    prompts = [[engine.encode_prompt(prompt, chat=chat) for prompt in request.prompts] for request in requests]
    longest = [max(map(len, each)) for each in prompts]
    completions: list[Completion | None] = [None] * len(requests)
    groups: dict[SamplingParams, list[int]] = defaultdict(list)
    for index in sorted(range(len(requests)), key=lambda index: -longest[index]):
        if longest[index] < max_tokens:
            groups[requests[index].sampling].append(index)
    for sampling, group in groups.items():
        widths = {index: min(max_tokens, longest[index] + sampling.max_tokens) for index in group}
        for batch in _batches(group, widths, [len(each) for each in prompts], cache_tokens):
            written = _write(
                engine, [requests[index] for index in batch], [prompts[index] for index in batch], widths[batch[0]]
            )
            for index, completion in zip(batch, written, strict=True):
                completions[index] = completion
    return completions


def _write(
    engine: MixtureEngine, requests: Sequence[MixtureRequest], prompts: Sequence[Sequence[list[int]]], max_tokens: int
) -> list[Completion]:
    """Write texts with the same sampling, token by token, in one session."""
    sampling = requests[0].sampling
    branches = [prompt for each in prompts for prompt in each]
    ends = np.cumsum([len(each) for each in prompts])
    rows = [range(end - len(each), end) for end, each in zip(ends.tolist(), prompts, strict=True)]
    session = engine.open(branches, seeds=[0] * len(branches), max_tokens=max_tokens)  # nothing is sampled in it
    limits = np.asarray([min(sampling.max_tokens, *(session.room(row) for row in each)) for each in rows])
    uniforms = row_uniforms([request.seed for request in requests], int(limits.max()))
    drafts: list[SegmentDraft] = []
    active = list(range(len(requests)))
    while active:
        logprobs = session.next_logprobs([row for entry in active for row in rows[entry]])
        parts = np.split(logprobs, np.cumsum([len(rows[entry]) for entry in active])[:-1])
        mixed = torch.stack(
            [mixed_logprobs(part, requests[entry].weights) for entry, part in zip(active, parts, strict=True)]
        )
        if not drafts:
            drafts = [SegmentDraft(engine.codec, sampling.stop, limit, mixed.shape[-1]) for limit in limits.tolist()]
        step = len(drafts[active[0]].token_ids)
        tokens, drawn = draw_tokens(mixed, sampling.temperature, torch.from_numpy(uniforms[active, step]))
        for entry, token, logprob in zip(list(active), tokens.tolist(), drawn.tolist(), strict=True):
            if drafts[entry].add(token, logprob):
                active.remove(entry)
            else:
                session.extend(rows[entry], [[token]] * len(rows[entry]))
    return [
        Completion(
            text=segment.text,
            finish=segment.finish,
            logprobs=tuple(segment.logprobs),
            prompt_tokens=sum(map(len, each)),
            tokens=len(segment.token_ids),
        )
        for segment, each in zip((draft.segment() for draft in drafts), prompts, strict=True)
    ]


def _batches(
    group: Sequence[int], widths: dict[int, int], rows: Sequence[int], cache_tokens: int
) -> Iterator[list[int]]:
    """Cut a group, longest first, into batches whose rows fit into the cache at the width of their first."""
    batch: list[int] = []
    for index in group:
        if batch and widths[batch[0]] * sum(rows[each] for each in (*batch, index)) > cache_tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch

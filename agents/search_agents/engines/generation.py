"""Texts written by an engine that opens sessions: requests of any kind, in batches that fit the memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any, cast

from search_agents.engines.base import (
    AsynchronousEngine,
    Capability,
    Completion,
    GenerationRequest,
    SampledSegment,
    SamplingParams,
    TokenEngine,
)

__all__ = ["generate_in_sessions"]


def generate_in_sessions(
    engine: TokenEngine,
    requests: Sequence[GenerationRequest],
    *,
    chat: bool,
    max_tokens: int,
    cache_tokens: int,
    keep: Callable[[Any, Sequence[Sequence[int]]], None] | None = None,
) -> Iterator[tuple[int, Completion | None]]:
    """Write a text for each request; see `StreamingEngine.generate_each`.

    Args:
        engine: Opens a session for each batch.
        requests: Those with the same sampling are batched, the longest prompts first.
        chat: Whether system and user words go through the model's chat template.
        max_tokens: The most tokens of prompt and text together.
        cache_tokens: The most tokens that a session holds, rows times the longest of them; bounds its memory.
        keep: Is given each session when its texts are written, and all token ids of its rows.
    """
    max_tokens = min(max_tokens, engine.max_context)
    prompts = [engine.encode_prompt(request.prompt, chat=chat) for request in requests]
    groups: dict[SamplingParams, list[int]] = defaultdict(list)
    for index in sorted(range(len(requests)), key=lambda index: -len(prompts[index])):
        if len(prompts[index]) < max_tokens:
            groups[requests[index].sampling].append(index)
        else:
            yield index, None
    for sampling, group in groups.items():
        for batch in _batches(group, [len(prompts[index]) + sampling.max_tokens for index in group], cache_tokens):
            width = min(max_tokens, len(prompts[batch[0]]) + sampling.max_tokens)
            rows, seeds = [prompts[index] for index in batch], [requests[index].seed for index in batch]
            for row, segment in _write(engine, rows, seeds, sampling, width, keep):
                yield batch[row], _completion(segment, len(rows[row]))


def _write(
    engine: TokenEngine,
    rows: Sequence[Sequence[int]],
    seeds: Sequence[int],
    sampling: SamplingParams,
    width: int,
    keep: Callable[[Any, Sequence[Sequence[int]]], None] | None,
) -> Iterator[tuple[int, SampledSegment]]:
    """One segment after each row, in a session of their own; one by one if the engine can."""
    segments: dict[int, SampledSegment] = {}
    if Capability.ASYNCHRONOUS not in engine.capabilities:
        in_turns = engine.open(rows, seeds=seeds, max_tokens=width)
        segments.update(enumerate(in_turns.sample(range(len(rows)), sampling)))
        yield from segments.items()
        return
    with closing(cast(AsynchronousEngine, engine).open(rows, seeds=seeds, max_tokens=width)) as session:
        for row in range(len(rows)):
            session.begin(row, sampling)
        while len(segments) < len(rows):
            ended = session.step()
            segments.update(ended)
            yield from ended
        if keep is not None:
            keep(session, [[*prompt, *segments[row].token_ids] for row, prompt in enumerate(rows)])


def _batches(group: Sequence[int], widths: Sequence[int], cache_tokens: int) -> Iterator[Sequence[int]]:
    """Cut a group, longest first, into batches whose rows fit into the cache at the width of their first."""
    start = 0
    while start < len(group):
        count = max(1, cache_tokens // widths[start])
        yield group[start : start + count]
        start += count


def _completion(segment: SampledSegment, prompt_tokens: int) -> Completion:
    return Completion(
        text=segment.text,
        finish=segment.finish,
        logprobs=tuple(segment.logprobs),
        prompt_tokens=prompt_tokens,
        tokens=len(segment.token_ids),
    )

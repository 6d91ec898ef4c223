"""Segments that a model says in the protocol it was trained on, through tokens or through texts.

With an engine that opens sessions each text is encoded once. Any other engine is given
the whole response so far, as the beginning of a response that it goes on with.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

from search_agents.engines.base import Capability, FinishReason, GenerationRequest, generate_each
from search_agents.methods.base import Setting, require_sessions
from search_agents.rollout.collect import derive_seed
from search_env.types import Call, Prompt

__all__ = ["Row", "Said", "Speaker", "begun", "say_in_text", "speaker_of"]

Row = TypeVar("Row")


class Said(NamedTuple):
    """A segment of the model."""

    text: str
    call: Call
    """What it took; what was read and written is the transcript itself."""
    token_ids: Sequence[int] = ()
    """Its tokens where they can be had, without an end of sequence."""


class Speaker(Protocol[Row]):
    """Says segments of responses; a row is all that was read and said of one."""

    def begin(self, prompt: Prompt, observation: str = "") -> Row:
        """A response that begins with a prompt, and with what the environment wrote after it."""
        ...

    def go_on(self, row: Row, said: Said, opening: str) -> Row:
        """A response after one of its segments, and after words that open the next."""
        ...

    def say(
        self, rows: Sequence[Row], *, keys: Sequence[tuple[int, ...]], stop: tuple[str, ...]
    ) -> Iterator[tuple[int, Said | None]]:
        """Say the next segment of each; see `say_in_text`."""
        ...


class _InText:
    """Speaks through an engine of texts; see `Speaker`."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting

    def begin(self, prompt: Prompt, observation: str = "") -> Prompt:
        return begun(prompt, observation)

    def go_on(self, row: Prompt, said: Said, opening: str) -> Prompt:
        return begun(row, said.text + opening)

    def say(
        self, rows: Sequence[Prompt], *, keys: Sequence[tuple[int, ...]], stop: tuple[str, ...]
    ) -> Iterator[tuple[int, Said | None]]:
        return say_in_text(self._setting, rows, keys=keys, stop=stop)


class _InTokens:
    """Speaks through sessions, where what was sampled is never encoded again; see `Speaker`."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._engine = require_sessions(setting.engine, "a response in tokens")

    def begin(self, prompt: Prompt, observation: str = "") -> list[int]:
        encoded = self._engine.encode_prompt(prompt, chat=self._setting.chat)
        return encoded + self._engine.encode_observation(observation)

    def go_on(self, row: list[int], said: Said, opening: str) -> list[int]:
        return [*row, *said.token_ids, *self._engine.encode_observation(opening)]

    def say(
        self, rows: Sequence[list[int]], *, keys: Sequence[tuple[int, ...]], stop: tuple[str, ...]
    ) -> Iterator[tuple[int, Said | None]]:
        setting = self._setting
        yield from ((index, None) for index, row in enumerate(rows) if len(row) >= setting.max_tokens)
        fitting = [index for index, row in enumerate(rows) if len(row) < setting.max_tokens]
        if fitting:
            seeds = [derive_seed(setting.seed, *keys[index]) for index in fitting]
            session = self._engine.open([rows[index] for index in fitting], seeds=seeds, max_tokens=setting.max_tokens)
            sampled = session.sample(range(len(fitting)), dataclasses.replace(setting.sampling, stop=stop))
            for index, segment in zip(fitting, sampled, strict=True):
                ids = segment.token_ids[:-1] if segment.finish is FinishReason.EOS else segment.token_ids
                yield index, Said(segment.text, _call(len(rows[index]), len(segment.token_ids)), ids)


def speaker_of(setting: Setting) -> Speaker[Any]:
    """How the engine of a setting says segments: in tokens where it opens sessions, in text anywhere else."""
    return _InTokens(setting) if Capability.SESSIONS in setting.engine.capabilities else _InText(setting)


def say_in_text(
    setting: Setting, prompts: Sequence[Prompt], *, keys: Sequence[tuple[int, ...]], stop: tuple[str, ...]
) -> Iterator[tuple[int, Said | None]]:
    """Let the model say a segment after each prompt, through an engine of texts.

    Args:
        setting: Engine and budgets.
        prompts: All that the model has read and said, which it goes on with, is in their prefill.
        keys: What the seed of each is derived from, beside the setting's.
        stop: Strings that end a segment.

    Yields:
        The index of a prompt and its segment, as they come; None where the prompt leaves no room in the budget of
        tokens.
    """
    sampling = dataclasses.replace(setting.sampling, stop=stop)
    requests = [
        GenerationRequest(prompt=prompt, sampling=sampling, seed=derive_seed(setting.seed, *key))
        for prompt, key in zip(prompts, keys, strict=True)
    ]
    completions = generate_each(setting.engine, requests, chat=setting.chat, max_tokens=setting.max_tokens)
    for index, each in completions:
        yield index, Said(each.text, _call(each.prompt_tokens, each.tokens, each.cost)) if each else None


def begun(prompt: Prompt, more: str) -> Prompt:
    """A prompt whose response begins with more."""
    return dataclasses.replace(prompt, prefill=prompt.prefill + more)


def _call(prompt_tokens: int | None, tokens: int | None, cost: float | None = 0.0) -> Call:
    return Call(purpose="segment", prompt_tokens=prompt_tokens, tokens=tokens, cost=cost)

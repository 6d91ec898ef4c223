"""What every engine is: a language model that can be asked one thing or several.

Text in, text out is what all of them do (`Engine`). An engine whose tokens can be had
too (`TokenEngine`) opens sessions: token ids in, sampled token ids with their log-probs
out. It never sees the environment and the environment never sees a token. Between them
stands the runner, which encodes every text once; ids that a session has taken in are
never decoded and encoded again, so what was sampled is what is trained on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from search_env.errors import ConfigError, ModelError
from search_env.types import Prompt

__all__ = [
    "AsynchronousEngine",
    "AsynchronousSession",
    "Capability",
    "Completion",
    "Engine",
    "FinishReason",
    "GenerationRequest",
    "GenerationSession",
    "NoChatTemplate",
    "NoEngine",
    "SampledSegment",
    "SamplingParams",
    "ScoredText",
    "ScoringRequest",
    "StreamingEngine",
    "TokenEngine",
    "check_prompts",
    "generate_each",
    "in_order",
]

T = TypeVar("T")


class Capability(StrEnum):
    """What an engine can be asked for."""

    GENERATE = "generate"
    """Text after a prompt, up to a stop string."""
    SCORE = "score"
    """Log-probability of each token of a given text."""
    NEXT_TOKEN = "next-token"
    """The whole distribution of the next token; such an engine is a `TokenEngine`."""
    SESSIONS = "sessions"
    """Token ids in and out over several turns; such an engine is a `TokenEngine`."""
    ASYNCHRONOUS = "asynchronous"
    """Rows of a session that begin and end each in its own time; such an engine is an `AsynchronousEngine`."""


class NoChatTemplate(ModelError):
    """A prompt was to go through a chat template, and the model has none."""


class FinishReason(StrEnum):
    """Why a segment ended."""

    STOP = "stop"
    """A stop string is complete."""
    EOS = "eos"
    """The model sampled an end-of-sequence token."""
    LENGTH = "length"
    """The segment's budget, or the room left in the row, is spent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """How to sample one segment.

    Raises:
        ConfigError: If the temperature is negative, the budget below 1 or a stop string empty.
    """

    temperature: float = 1.0
    """Divides the logits; 0 takes the most likely token."""
    max_tokens: int = 256
    """The most tokens of one segment."""
    stop: tuple[str, ...] = ()
    """Strings after which the segment ends; they stay in its text."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.temperature < float("inf"):
            raise ConfigError(f"temperature is {self.temperature}; give 0 (greedy) or a positive number such as 1.0.")
        if self.max_tokens < 1:
            raise ConfigError(f"max_tokens is {self.max_tokens}; a segment needs at least 1 token.")
        if isinstance(self.stop, str) or not all(self.stop):
            raise ConfigError(f"stop is {self.stop!r}; give a tuple of non-empty strings, for example ('</answer>',).")


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledSegment:
    """What the model wrote in one go."""

    token_ids: list[int]
    """Every token that was sampled: the last one may reach beyond the stop string, or be the end of sequence."""
    logprobs: list[float]
    """Log-probability of each token under the distribution it was drawn from (at temperature 0: under the
    untempered one), computed in float32."""
    text: str
    """The decoded tokens, cut right after the first stop string; the end of sequence is not part of it."""
    finish: FinishReason


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One text to be written."""

    prompt: Prompt
    sampling: SamplingParams
    seed: int = 0
    """With prompt and sampling it decides what is sampled, whatever is asked beside it, as far as `TokenEngine.open`
    says."""
    logprobs: bool = False
    """Whether `Completion.logprobs` are wanted; an engine that has them at hand tells them unasked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What a model wrote after a prompt."""

    text: str
    """Cut right after the first stop string."""
    finish: FinishReason
    logprobs: tuple[float, ...] = ()
    """Log-probability of each token, see `SampledSegment.logprobs`; empty if the engine does not tell."""
    tells_ending: bool = True
    """Whether the last of them is that of the token that ended the text, if one did; some servers leave it out."""
    prompt_tokens: int | None = None
    """Tokens that the engine took in; None if it does not tell."""
    tokens: int | None = None
    """Tokens that it sampled; None if it does not tell."""
    cost: float | None = 0.0
    """Price in USD; 0 for a model that nobody charges for, None if price or tokens are not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoringRequest:
    """A text whose tokens are to be scored."""

    context: str
    """What the model has read before; it may be empty."""
    text: str
    """The text, at least one token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredText:
    """How likely a model finds a text, token by token."""

    tokens: tuple[str, ...]
    """The pieces of the text; joined they are the text. One is empty where a character is spread over tokens."""
    logprobs: tuple[float, ...]
    """Log-probability of each token given the context and all tokens before it, natural logarithm."""
    context_tokens: int = 0
    """Tokens that the context took."""
    cost: float | None = 0.0
    """As of `Completion`."""


class Engine(Protocol):
    """A language model, here or on a server."""

    @property
    def name(self) -> str:
        """What the model is called in tables."""
        ...

    @property
    def capabilities(self) -> frozenset[Capability]:
        """What it can be asked for."""
        ...

    def generate(
        self, requests: Sequence[GenerationRequest], *, chat: bool, max_tokens: int
    ) -> list[Completion | None]:
        """Write a text for each request.

        Args:
            requests: They may differ in everything.
            chat: Whether system and user words go through the model's chat template.
            max_tokens: The most tokens of prompt and text together.

        Returns:
            One completion for each request, in that order; None where the prompt leaves no room for a token.

        Raises:
            EngineUnavailable: If a server failed for good.
            ModelError: If `chat` is asked of a model without a chat template.
        """
        ...

    def score(self, requests: Sequence[ScoringRequest]) -> list[ScoredText | None]:
        """Score texts; `Capability.SCORE`.

        Returns:
            One score for each request, in that order; None where context and text exceed what the model can read.

        Raises:
            EngineUnavailable: If a server failed for good.
            ModelError: If a text is empty, or the engine cannot score.
        """
        ...


@runtime_checkable
class StreamingEngine(Engine, Protocol):
    """An engine whose completions come one by one, so that each can be used while the others are written."""

    def generate_each(
        self, requests: Sequence[GenerationRequest], *, chat: bool, max_tokens: int
    ) -> Iterator[tuple[int, Completion | None]]:
        """Write a text for each request; see `Engine.generate`.

        Yields:
            The index of a request and its completion, as soon as it is there and in any order. A failure is raised when
            all that came before it, or was on its way, has been yielded.
        """
        ...


def generate_each(
    engine: Engine, requests: Sequence[GenerationRequest], *, chat: bool, max_tokens: int
) -> Iterable[tuple[int, Completion | None]]:
    """The completions of any engine with the indices of their requests; see `StreamingEngine.generate_each`."""
    if isinstance(engine, StreamingEngine):
        return engine.generate_each(requests, chat=chat, max_tokens=max_tokens)
    return enumerate(engine.generate(requests, chat=chat, max_tokens=max_tokens))


def in_order(found: Iterable[tuple[int, T]]) -> list[T]:
    """What came one by one, each with its index, in the order of the indices."""
    return [each for _, each in sorted(found, key=lambda pair: pair[0])]


class NoEngine:
    """Stands where a method asks no model anything; see `Engine`."""

    name = "no model"
    capabilities: frozenset[Capability] = frozenset()

    def generate(
        self, requests: Sequence[GenerationRequest], *, chat: bool, max_tokens: int
    ) -> list[Completion | None]:
        """There is nobody to ask.

        Raises:
            ModelError: Always.
        """
        raise ModelError("this method was made without a model, and asks one. Let it say so: needs = {GENERATE}.")

    def score(self, requests: Sequence[ScoringRequest]) -> list[ScoredText | None]:
        """There is nobody to ask.

        Raises:
            ModelError: Always.
        """
        raise ModelError("this method was made without a model, and asks one. Let it say so: needs = {SCORE}.")


class GenerationSession(Protocol):
    """A batch of rows, one an episode, that grow turn by turn and keep what was computed for them."""

    def sample(self, rows: Sequence[int], params: SamplingParams) -> list[SampledSegment]:
        """Sample one segment for each of the given rows and append it to them.

        Args:
            rows: Indices of distinct rows, each with room for at least one token.
            params: The same for all rows; a row's own room bounds its segment too.

        Returns:
            One segment for each entry of `rows`, in that order.
        """
        ...

    def extend(self, rows: Sequence[int], token_ids: Sequence[Sequence[int]]) -> None:
        """Append observations: the model reads `token_ids[i]` next in row `rows[i]`."""
        ...

    def next_logprobs(self, rows: Sequence[int]) -> npt.NDArray[np.float32]:
        """The distribution of the next token of rows that were extended since they were last asked.

        Args:
            rows: Indices of distinct rows.

        Returns:
            Log-probabilities, [rows, vocab_size], in the order of `rows`.
        """
        ...

    def room(self, row: int) -> int:
        """Number of tokens that row `row` can still take."""
        ...


class TokenEngine(Engine, Protocol):
    """An engine that opens sessions: it generates for many episodes at once, and its tokens can be had."""

    tokenizer: Any
    """The tokenizer of the model."""
    max_context: int
    """The most tokens a row may ever hold."""

    def encode_prompt(self, prompt: Prompt, *, chat: bool) -> list[int]:
        """Encode the opening of an episode.

        Args:
            prompt: Its parts; `prompt.prefill` ends it in both cases.
            chat: Whether system and user words go through the model's chat template.

        Raises:
            ModelError: If `chat` is asked of a model without a chat template.
        """
        ...

    def encode_observation(self, text: str) -> list[int]:
        """Encode text that the environment wrote; no special token is ever among the ids."""
        ...

    def open(self, prompts: Sequence[Sequence[int]], *, seeds: Sequence[int], max_tokens: int) -> GenerationSession:
        """Start a row for each prompt.

        Args:
            prompts: Token ids, at least one a row.
            seeds: One a row. The tokens of a row depend on its prompt, its observations and its seed only, and on the
                rows beside it by rounding: in float32 the tokens are the same beside any others, but for a draw that
                falls within rounding of the border between two (one in 24,000 tokens was seen), and their log-probs
                are to rounding; in bfloat16, whose rounding may change what is drawn, neither is promised.
            max_tokens: The most tokens a row may hold, prompt and observations included.

        Raises:
            ConfigError: If a prompt is empty or longer than `max_tokens`, or `max_tokens` exceeds `max_context`.
        """
        ...


class AsynchronousSession(GenerationSession, Protocol):
    """A session whose rows need not wait for one another: what one of them awaits holds up nobody else."""

    def begin(self, row: int, params: SamplingParams) -> None:
        """Begin to sample a segment of a row; `step` samples it.

        Args:
            row: A row that is not sampling, with room for at least one token.
            params: They may differ from row to row.
        """
        ...

    def step(self) -> list[tuple[int, SampledSegment]]:
        """Go on with all rows that are sampling, by a token at most.

        Returns:
            The rows whose segments ended with this step, and the segments, which are appended to them.
        """
        ...

    def release(self, row: int) -> None:
        """Give up what is held for a row that is not sampling; it is of no more use."""
        ...

    def close(self) -> None:
        """Give up the segments that are not finished. Rows that were sampling are of no more use."""
        ...


class AsynchronousEngine(TokenEngine, Protocol):
    """A token engine whose sessions are asynchronous."""

    @property
    def continuous(self) -> bool:
        """Whether episodes are best played each in its own time; else in turns, all of them a segment each."""
        ...

    def open(self, prompts: Sequence[Sequence[int]], *, seeds: Sequence[int], max_tokens: int) -> AsynchronousSession:
        """Start a row for each prompt; see `TokenEngine.open`."""
        ...


def check_prompts(prompts: Sequence[Sequence[int]], *, max_tokens: int, max_context: int) -> None:
    """Refuse prompts that a session cannot hold; see `TokenEngine.open`.

    Raises:
        ConfigError: Naming the first prompt that is empty or too long, or the budget that is too large.
    """
    if max_tokens > max_context:
        raise ConfigError(
            f"a token budget of {max_tokens} an episode exceeds the model's context of {max_context}; lower the budget."
        )
    for row, prompt in enumerate(prompts):
        if not 0 < len(prompt) < max_tokens:
            raise ConfigError(
                f"prompt {row} has {len(prompt)} tokens; it must have at least 1 and leave room within the budget of "
                f"{max_tokens} tokens an episode. Shorten the prompt or raise the budget."
            )

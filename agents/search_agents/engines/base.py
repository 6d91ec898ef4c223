"""What every engine is: token ids in, sampled token ids with their log-probs out.

An engine never sees the environment and the environment never sees a token. Between
them stands the runner, which encodes every text once; ids that a session has taken
in are never decoded and encoded again, so what was sampled is what is trained on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from search_env.errors import ConfigError
from search_env.types import Prompt

__all__ = ["Engine", "FinishReason", "GenerationSession", "SampledSegment", "SamplingParams", "check_prompts"]


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

    def room(self, row: int) -> int:
        """Number of tokens that row `row` can still take."""
        ...


class Engine(Protocol):
    """Generates for many episodes at once."""

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
            seeds: One a row. The tokens of a row depend on its prompt, its observations and its seed
                only, never on the rows beside it, up to rounding.
            max_tokens: The most tokens a row may hold, prompt and observations included.

        Raises:
            ConfigError: If a prompt is empty or longer than `max_tokens`, or `max_tokens` exceeds `max_context`.
        """
        ...


def check_prompts(prompts: Sequence[Sequence[int]], *, max_tokens: int, max_context: int) -> None:
    """Refuse prompts that a session cannot hold; see `Engine.open`.

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

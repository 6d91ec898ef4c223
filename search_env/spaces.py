"""A text space over all of Unicode.

Gymnasium's `Text` space lists its characters: over all of Unicode that costs seconds
and 100 MB, and any character left out makes an observation invalid. `UnicodeText`
bounds the length only, so membership is one comparison whatever the text.

`AsyncVectorEnv` reads a `Text` observation out of shared memory once, before the first
reset, and returns that stale copy ever after. `UnicodeText` therefore refuses shared
memory, and Gymnasium answers with the remedy: ``shared_memory=False``.
"""

from __future__ import annotations

import string
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.error import CustomSpaceError
from gymnasium.spaces import Box, Text
from gymnasium.spaces.utils import flatten, flatten_space, unflatten
from gymnasium.vector.utils import create_shared_memory
from numpy.typing import NDArray

from search_env.errors import ConfigError

__all__ = ["UnicodeText"]

_PADDING = sys.maxunicode + 1
"""Fills a flattened text up to its maximum length; no character has this code."""


class UnicodeText(Text):
    """Every string up to a length, the empty string included.

    A uniform sample of characters would never be a sensible action, so `sample` draws
    one of the given examples.

    Args:
        max_length: The most characters a member may have.
        examples: Members to draw samples from, at least one.
        seed: Seed of the sampling.

    Raises:
        ConfigError: If there are no examples or one is not a member.

    Example:
        >>> space = UnicodeText(20, examples=("<answer>Zoë</answer>",), seed=0)
        >>> space.sample() in space, "é" * 20 in space, "é" * 21 in space
        (True, True, False)
    """

    def __init__(
        self, max_length: int, *, examples: Sequence[str] = ("",), seed: int | np.random.Generator | None = None
    ) -> None:
        # The character set is what code that rebuilds a plain Text from this space sees; nothing here reads it.
        super().__init__(max_length, min_length=0, charset=string.printable, seed=seed)
        self.examples = tuple(examples)
        if not self.examples or not all(example in self for example in self.examples):
            raise ConfigError(
                f"examples must be at least one text of at most {max_length} characters, got {examples!r}"
            )

    def sample(self, mask: Any = None, probability: Any = None) -> str:
        """Draw one of the examples; a mask or probability over characters goes to `Text.sample`."""
        if mask is not None or probability is not None:
            return super().sample(mask, probability)
        return self.examples[int(self.np_random.integers(len(self.examples)))]

    def contains(self, x: Any) -> bool:
        """Whether ``x`` is a string that is not too long."""
        return isinstance(x, str) and len(x) <= self.max_length

    def __repr__(self) -> str:
        return f"UnicodeText({self.max_length})"

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, UnicodeText) and self.max_length == other.max_length and self.examples == other.examples
        )


@create_shared_memory.register(UnicodeText)
def _refuse_shared_memory(space: UnicodeText, n: int = 1, ctx: Any = None) -> Any:
    raise CustomSpaceError(f"{space} cannot live in shared memory: a text has no fixed size. Pass shared_memory=False.")


@flatten_space.register(UnicodeText)
def _flatten_space(space: UnicodeText) -> Box:
    return Box(low=0, high=_PADDING, shape=(space.max_length,), dtype=np.int32)


@flatten.register(UnicodeText)
def _flatten(space: UnicodeText, x: str) -> NDArray[np.int32]:  # type: ignore[misc]
    codes = np.full(space.max_length, _PADDING, dtype=np.int32)
    codes[: len(x)] = [ord(char) for char in x]
    return codes


@unflatten.register(UnicodeText)
def _unflatten(space: UnicodeText, x: NDArray[np.int32]) -> str:  # type: ignore[misc]
    return "".join(chr(code) for code in x if code != _PADDING)

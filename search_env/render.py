"""Episodes as text for people.

Models and documents write whatever they like, so nothing of theirs may command the
terminal: control characters, half surrogate pairs and marks that reverse the reading
direction are shown as escapes, and words in brackets are never markup.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence

from search_env.types import Transcript, Turn

__all__ = ["Span", "end_spans", "episode_spans", "plain", "print_spans", "question_spans", "turn_spans", "visible"]

Span = tuple[str, str]
"""A text that is safe to show, and the style it is shown in on a terminal."""

_DIRECTION_MARKS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def visible(text: str) -> str:
    r"""Make a text safe to show; line breaks and tabs stay.

    Example:
        >>> print(visible("\x1b[31mred\u202e"))
        \x1b[31mred\u202e
    """
    return "".join(char if _is_safe(char) else char.encode("unicode_escape").decode() for char in text)


def question_spans(transcript: Transcript) -> list[Span]:
    """The question."""
    return [(f"Question: {visible(transcript.question.text)}\n", "bold")]


def turn_spans(turn: Turn) -> list[Span]:
    """One turn: the model's words, and in another style what came back."""
    return [(visible(turn.segment), ""), (visible(turn.observation), "cyan")]


def end_spans(transcript: Transcript, reward_parts: Mapping[str, float]) -> list[Span]:
    """Why the episode ended and what it earned; nothing while it runs."""
    if transcript.stop_reason is None:
        return []
    parts = ", ".join(f"{name} {value:g}" for name, value in reward_parts.items())
    return [(f"\n[{transcript.stop_reason.value}] reward {sum(reward_parts.values()):g} ({parts})\n", "bold")]


def episode_spans(transcript: Transcript, reward_parts: Mapping[str, float]) -> list[Span]:
    """A whole episode so far."""
    turns = [span for turn in transcript.turns for span in turn_spans(turn)]
    return [*question_spans(transcript), *turns, *end_spans(transcript, reward_parts)]


def plain(spans: Sequence[Span]) -> str:
    """The text of some spans."""
    return "".join(text for text, _ in spans)


def print_spans(spans: Sequence[Span]) -> None:
    """Print spans on the terminal, in colour if it has any."""
    from rich.console import Console
    from rich.text import Text

    Console(soft_wrap=True).print(Text.assemble(*spans), end="")


def _is_safe(char: str) -> bool:
    if char in "\n\t":
        return True
    return unicodedata.category(char) not in ("Cc", "Cs") and char not in _DIRECTION_MARKS

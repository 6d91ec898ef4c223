"""What a dialect is: the mapping between a model's text and the environment's actions.

A dialect judges only what the model wrote. Documents reach the model through
`render_documents`, which makes every tag and special token inside them inert, so
no document can open or close a block of the protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol

from search_env.types import Action, FormatVerdict, Hit, Prompt

__all__ = ["Dialect", "PromptStyle", "TagPair"]


class PromptStyle(StrEnum):
    """How the prompt is worded."""

    BASE = "base"
    """Instructions as plain text for a model without a chat template."""
    INSTRUCT = "instruct"
    """Instructions in the system message of a chat template."""
    BARE = "bare"
    """The question and the opening of the response only, for models trained on this protocol."""


class TagPair(NamedTuple):
    """An opening tag and its closing tag."""

    open: str
    close: str


class Dialect(Protocol):
    """One protocol of tags. Stateless: every method is a pure function of its arguments."""

    @property
    def name(self) -> str:
        """The name in configs, for example ``r1-searcher``."""
        ...

    @property
    def stop(self) -> tuple[str, ...]:
        """Strings after which the model's segment ends: end of query, end of answer."""
        ...

    @property
    def tags(self) -> tuple[str, ...]:
        """Every tag of the protocol, in pairs: opening tag, closing tag."""
        ...

    @property
    def think(self) -> TagPair:
        """The tags around the reasoning."""
        ...

    @property
    def thinks_each_turn(self) -> bool:
        """Whether every segment has a block of reasoning of its own; else the whole response has one."""
        ...

    @property
    def documents(self) -> TagPair:
        """The tags around the documents, written by the environment only."""
        ...

    @property
    def query(self) -> TagPair:
        """The tags around a query, written by the model."""
        ...

    @property
    def answer(self) -> TagPair:
        """The tags around the final answer."""
        ...

    def parse(self, segment: str) -> Action:
        """Read one segment: a search, an answer, or malformed with the problem named."""
        ...

    def render_documents(self, hits: Sequence[Hit]) -> str:
        """Write documents as the observation that the model reads next, their tags made inert."""
        ...

    def render_notice(self, action: Action) -> str | None:
        """The observation after a malformed segment, or None if the episode ends there."""
        ...

    def answer_body(self, answer: str) -> str:
        """What a model would write between the answer tags to give an answer; the answer's tags are not looked at."""
        ...

    def judge_format(self, segments: Sequence[str], actions: Sequence[Action] | None = None) -> FormatVerdict:
        """Judge a finished episode by the model's own segments, and what `parse` made of each if that is known."""
        ...

    def prompt(self, question: str, style: PromptStyle) -> Prompt:
        """Word the prompt for a question; tags inside the question are made inert."""
        ...

    def with_template(self, template: str) -> Dialect:
        """The same dialect with a user's own prompt, which holds ``{question}``; see `with_prompt`."""
        ...

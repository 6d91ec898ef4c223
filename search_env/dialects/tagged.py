"""What all dialects of paired tags share: reading a segment, the prompt, the general format rules.

Lenient to act, strict to judge. An action is what stands between the last opening tag and
the closing tag that ends the segment, so an untidy query is still run and its documents
can still teach; the format judgement then names every rule that the segments break.
A segment is malformed only where no action can be read: it ends in neither closing tag,
goes on after one, lacks the opening tag, or its query is empty.
"""

from __future__ import annotations

import dataclasses
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import ClassVar, Self

from search_env.dialects.base import PromptStyle, TagPair
from search_env.dialects.inert import has_tag, make_inert
from search_env.dialects.prompts import fill_template
from search_env.types import Action, ActionKind, Document, FormatVerdict, Hit, Prompt, make_action

__all__ = ["ANSWER", "THINK", "TagPair", "TaggedDialect"]


THINK = TagPair("<think>", "</think>")
ANSWER = TagPair("<answer>", "</answer>")

# Bound once: Python 3.11 takes longer to look a member up than to compare it.
_SEARCH, _ANSWER, _MALFORMED = ActionKind
_FLAWLESS = FormatVerdict()
_MOST_LINES = 16_384  # some tens of megabytes


@dataclass(frozen=True, kw_only=True)
class TaggedDialect(ABC):
    """A protocol of four pairs of tags."""

    name: str
    """The name in configs."""
    query: TagPair
    """Around a query, written by the model."""
    documents: TagPair
    """Around the documents, written by the environment only."""
    think: TagPair = THINK
    """Around the reasoning."""
    answer: TagPair = ANSWER
    """Around the final answer."""
    thinks_each_turn: bool = False
    """Whether every segment has a block of reasoning of its own; else the whole response has one."""
    default_prefill: str = ""
    """What the dialect's own prompts put in the model's mouth."""
    template: str | None = None
    """A user's own prompt, used for every style instead of the dialect's wording; holds ``{question}``."""
    _lines: ClassVar[dict[int, tuple[int, str, Document]]]
    """Rank and line of the documents last shown, by ``id``, which is a document's own for as long as it is kept here.
    In a large corpus an object's words are rarely in the processor's caches; its address needs no look at them."""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._lines = {}

    @cached_property
    def stop(self) -> tuple[str, ...]:
        """Strings after which the model's segment ends: end of query, end of answer."""
        return (self.query.close, self.answer.close)

    @cached_property
    def tags(self) -> tuple[str, ...]:
        """Every tag of the protocol."""
        return (*self.think, *self.answer, *self.query, *self.documents)

    @cached_property
    def prefill(self) -> str:
        """What the prompt puts in the model's mouth: its first segment continues this."""
        if self.template is None:
            return self.default_prefill
        return fill_template(self.template, "", prefill=self.think.open).prefill

    def parse(self, segment: str) -> Action:
        """Read one segment.

        Args:
            segment: The model's text up to and with its closing tag; blanks after the tag do not matter.

        Returns:
            A search with its query (blanks collapsed, double quotes dropped), an answer (stripped, perhaps empty),
            or malformed with the problem named.
        """
        text = segment.rstrip()
        is_answer, (opening, closing) = False, self.query
        before, end, after = text.partition(closing)
        if self.answer.close in before:
            is_answer, (opening, closing) = True, self.answer
            before, end, after = text.partition(closing)
        if not end:
            return _malformed(f"it ends in neither {self.query.close} nor {self.answer.close}")
        if after:
            return _malformed(f"it goes on after {closing}")
        _, begin, content = before.rpartition(opening)
        if not begin:
            return _malformed(f"{closing} without {opening}")
        if is_answer:
            return make_action(_ANSWER, content.strip())
        query = " ".join(content.replace('"', " ").split())
        return make_action(_SEARCH, query) if query else _malformed("the query is empty")

    def render_documents(self, hits: Sequence[Hit]) -> str:
        """Write documents as the observation that the model reads next.

        Args:
            hits: The documents found, best first; may be empty, which the model is told as ``None``.

        Returns:
            One line a document inside the document tags, the only live tags in the text.
        """
        lines = []
        for rank, hit in enumerate(hits, start=1):
            known = self._lines.get(id(hit.document))
            lines.append(known[1] if known is not None and known[0] == rank else self._line(rank, hit.document))
        lines = lines or ["None"]
        before, between, after = self._frame
        lines[0] = before + lines[0]
        lines[-1] += after
        return between.join(lines)

    def answer_body(self, answer: str) -> str:
        """What stands between the answer tags; see `Dialect.answer_body`."""
        return answer

    def judge_format(self, segments: Sequence[str], actions: Sequence[Action] | None = None) -> FormatVerdict:
        """Judge a finished episode by the model's own segments.

        Args:
            segments: What the model wrote, one string a turn, without the prompt's prefill and without documents.
            actions: What `parse` made of each, if that is known already.

        Returns:
            The verdict; every broken rule is one sentence in it, so an empty tuple means that all hold.
        """
        actions = [self.parse(segment) for segment in segments] if actions is None else actions
        own = [self.prefill + segments[0], *segments[1:]] if segments and self.prefill else segments
        problems = [*_ending_problems(actions), *self._structure_problems(own, actions), *_answer_problems(actions)]
        return FormatVerdict(problems=tuple(dict.fromkeys(problems))) if problems else _FLAWLESS

    def prompt(self, question: str, style: PromptStyle) -> Prompt:
        """Word the prompt for a question.

        Args:
            question: The question; made inert, so it can hold no tag and no line break.
            style: Which wording; without effect for a dialect with its own template.

        Returns:
            The prompt, its prefill being the text that the model's first segment continues.
        """
        inert = make_inert(question)
        if self.template is not None:
            return fill_template(self.template, inert, prefill=self.think.open)
        return self._worded(inert, PromptStyle(style))

    def with_template(self, template: str) -> Self:
        """The same dialect with a user's own prompt; see `search_env.dialects.with_prompt`."""
        return dataclasses.replace(self, template=template)

    @abstractmethod
    def render_notice(self, action: Action) -> str | None:
        """The observation after a malformed segment, or None if the episode ends there."""

    @abstractmethod
    def _worded(self, question: str, style: PromptStyle) -> Prompt:
        """The dialect's own prompt for an inert question."""

    @staticmethod
    @abstractmethod
    def _document_line(rank: int, title: str, text: str) -> str:
        """One document as a line.

        Args:
            rank: Its place among the hits, from 1.
            title: Its title, inert.
            text: Its text, inert. What stands around the two holds no bracket, and what stands between them some
                white space, so that no tag can grow together.
        """

    @property
    @abstractmethod
    def _frame(self) -> tuple[str, str, str]:
        """What stands before, between and after the lines, the document tags in it."""

    @abstractmethod
    def _structure_problems(self, segments: Sequence[str], actions: Sequence[Action]) -> list[str]:
        """Which of the dialect's rules on number and order of tags the segments break.

        Args:
            segments: The model's segments, the first one with the prompt's prefill before it.
            actions: The action of each segment.
        """

    def _line(self, rank: int, document: Document) -> str:
        line = _inert_line(self._document_line, rank, document.title, document.text)
        if len(self._lines) >= _MOST_LINES:
            self._lines.clear()
        self._lines[id(document)] = rank, line, document
        return line

    @cached_property
    def _tag_pattern(self) -> re.Pattern[str]:
        return re.compile(f"({'|'.join(map(re.escape, self.tags))})")


@lru_cache(maxsize=_MOST_LINES)
def _inert_line(write: Callable[[int, str, str], str], rank: int, title: str, text: str) -> str:
    """A document as a line, made once: many searches find the same, at some retrievers as a new object each time."""
    return write(rank, make_inert(title), make_inert(text))


def _malformed(problem: str) -> Action:
    return make_action(_MALFORMED, problem=problem)


def _ending_problems(actions: Sequence[Action]) -> list[str]:
    problems = []
    answers = 0
    for number, action in enumerate(actions, start=1):
        if action.problem:
            problems.append(f"segment {number}: {action.problem}")
        answers += action.kind is _ANSWER
    ends = bool(actions) and actions[-1].kind is _ANSWER
    if not ends:
        problems.append("the episode ends without an answer")
    if answers > ends:
        problems.append("the response goes on after an answer")
    return problems


def _answer_problems(actions: Sequence[Action]) -> list[str]:
    problems = []
    for answer in [action.text for action in actions if action.kind is _ANSWER]:
        if not answer:
            problems.append("the answer is empty")
        elif has_tag(answer):
            problems.append("a tag inside the answer")
    return problems

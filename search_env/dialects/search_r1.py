"""The dialect of Search-R1: every segment is one block of reasoning and one action.

A segment is ``<think> … </think>`` and then either ``<search> … </search>`` or
``<answer> … </answer>``, nothing outside the blocks. Documents come back inside
``<information>``. A malformed segment costs the format, not the episode: the model is
told what was wrong and may try again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from search_env.dialects.base import PromptStyle
from search_env.dialects.tagged import TaggedDialect, TagPair
from search_env.types import Action, ActionKind, Prompt

__all__ = ["SEARCH_R1", "SearchR1"]

_RULES = """\
- Every step begins with reasoning inside <think> </think>, also after each new piece of information.
- If a fact is missing or uncertain, end the step with a search: <search> keywords </search>
- A query holds keywords only and asks for one triple: one relation of one subject. Search as often as needed.
- What the search found comes back inside <information> </information>. Never write information yourself.
- When nothing is missing any more, end the step with the answer: <answer> the final answer </answer>
- The answer is a few words, or yes or no where the question asks for that, without explanation."""


@dataclass(frozen=True, kw_only=True)
class SearchR1(TaggedDialect):
    """Search-R1's protocol.

    Example:
        >>> SEARCH_R1.parse("<think> Which city? </think> <search> capital Norway </search>").text
        'capital Norway'
    """

    def render_notice(self, action: Action) -> str | None:
        """Tell the model what was wrong with its last segment and what it may write."""
        return (
            f"\n\nThat step was not understood: {action.problem}. To search, write {self.query.open} keywords "
            f"{self.query.close}; to finish, write {self.answer.open} the final answer {self.answer.close}. "
            "Let me do this step again.\n\n"
        )

    def _worded(self, question: str, style: PromptStyle) -> Prompt:
        if style is PromptStyle.BARE:
            return Prompt(user=f"Question: {question}\n")
        opening = f"Answer the question with the help of a search system. Keep to these rules:\n{_RULES}"
        if style is PromptStyle.INSTRUCT:
            return Prompt(system=opening, user=question)
        return Prompt(user=f"{opening}\n\nQuestion: {question}\n")

    @staticmethod
    def _document_line(rank: int, title: str, text: str) -> str:
        # The passages that the authors trained on hold their titles in quotes, and the loop shows them as they are.
        return f'Doc {rank}(Title: "{title}") {text}'

    @cached_property
    def _frame(self) -> tuple[str, str, str]:
        return f"\n\n{self.documents.open}", "\n", f"{self.documents.close}\n\n"

    def _structure_problems(self, segments: Sequence[str], actions: Sequence[Action]) -> list[str]:
        if all(map(self._plain_pattern.fullmatch, segments)):
            return []
        return [
            f"segment {number}: {problem}"
            for number, (segment, action) in enumerate(zip(segments, actions, strict=True), start=1)
            for problem in self._segment_problems(segment, action)
        ]

    def _segment_problems(self, segment: str, action: Action) -> list[str]:
        pieces = self._tag_pattern.split(segment)  # text, tag, text, tag, … text
        found = pieces[1::2]
        expected = [*self.think, *(self.query if action.kind is ActionKind.SEARCH else self.answer)]
        if found == expected and action.kind is not ActionKind.MALFORMED:
            return ["words outside the tags"] if "".join(pieces[::4]).strip() else []
        problems = [f"{tag} is for the environment to write" for tag in self.documents if tag in found]
        if action.kind is ActionKind.MALFORMED:
            return problems
        return [*problems, f"its tags are {' '.join(found)}, expected {' '.join(expected)}"]

    @cached_property
    def _plain_pattern(self) -> re.Pattern[str]:
        """A well-formed segment without any further bracket, which most are."""
        think, query, answer = (
            rf"{re.escape(tags.open)}[^<]*{re.escape(tags.close)}\s*" for tags in (self.think, self.query, self.answer)
        )
        return re.compile(rf"\s*{think}(?:{query}|{answer})")


SEARCH_R1 = SearchR1(
    name="search-r1",
    query=TagPair("<search>", "</search>"),
    documents=TagPair("<information>", "</information>"),
    thinks_each_turn=True,
)
"""Search-R1's tags."""

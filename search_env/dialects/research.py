r"""The dialect of ReSearch: reasoning, searches and results alternate, and the answer stands in a box.

A segment is ``<think> … </think>`` and then ``<search> … </search>`` or ``<answer> … </answer>``; documents come back
inside ``<result>``, and the answer's last ``\boxed{…}`` is what counts (arXiv 2503.19470). The format rules are those
of the authors' reward: reasoning in pairs of tags and at least once, one answer, a box in it. A malformed segment
ends the episode: there, text that stops at neither tag is where generation ends.

Two differences from the authors' code, both on the lenient side to act: an answer without a box is read as it stands
(there it is empty), which the format judgement names; and an empty query ends the episode (there the result says that
nothing was searched).
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from search_env.dialects.base import PromptStyle
from search_env.dialects.tagged import TaggedDialect, TagPair
from search_env.types import Action, ActionKind, Prompt

__all__ = ["RESEARCH", "ReSearch", "boxed"]

_BOX = r"\boxed{"

_RULES = r"""
- Reason inside <think> </think> before every search and before the answer.
- If a fact is missing or uncertain, search for it in the encyclopedia: <search> keywords </search>
- A query holds keywords only and asks for one triple: one relation of one subject. Search as often as needed.
- What was found comes back inside <result> </result>. Never write a result yourself.
- At the end write <answer> The final answer is \[ \boxed{the exact answer} \] </answer>
- The exact answer is a few words, or yes or no where the question asks for that."""


@dataclass(frozen=True, kw_only=True)
class ReSearch(TaggedDialect):
    r"""ReSearch's protocol.

    Example:
        >>> RESEARCH.parse(r"<think> It is Oslo. </think> <answer> It is \[ \boxed{Oslo} \] </answer>").text
        'Oslo'
    """

    def parse(self, segment: str) -> Action:
        """Read one segment; see `TaggedDialect.parse`. The answer is what its last box holds."""
        action = super().parse(segment)
        if action.kind is not ActionKind.ANSWER:
            return action
        inside = boxed(action.text)
        return action if inside is None else dataclasses.replace(action, text=inside.strip())

    def render_notice(self, action: Action) -> str | None:
        """None: a malformed segment ends the episode."""
        return None

    def answer_body(self, answer: str) -> str:
        """The answer in its box; see `Dialect.answer_body`."""
        return f"{_BOX}{answer}}}"

    def _worded(self, question: str, style: PromptStyle) -> Prompt:
        if style is PromptStyle.BARE:
            return Prompt(user=f"Question: {question}\n")
        opening = f"Solve the given question step by step with the help of a search tool. Keep to these rules:{_RULES}"
        if style is PromptStyle.INSTRUCT:
            return Prompt(system=opening, user=question)
        return Prompt(user=f"{opening}\n\nUser: {question}\nAssistant:")

    @staticmethod
    def _document_line(rank: int, title: str, text: str) -> str:
        # As in the corpus of the authors.
        return f'"{title}"\n{text}'

    @cached_property
    def _frame(self) -> tuple[str, str, str]:
        return f" {self.documents.open}\n", "\n\n", f"\n{self.documents.close}"

    def _structure_problems(self, segments: Sequence[str], actions: Sequence[Action]) -> list[str]:
        response = "\n".join(segments)
        counts = Counter(self._tag_pattern.findall(response))
        searches = sum(action.kind is ActionKind.SEARCH for action in actions)
        problems = [f"{tag} is for the environment to write" for tag in self.documents if counts[tag]]
        if not counts[self.think.open] == counts[self.think.close] > 0:
            problems.append(f"{self.think.open} and {self.think.close} do not come in pairs")
        expected = {tag: 1 for tag in self.answer} | {tag: searches for tag in self.query}
        problems += [
            f"{tag} occurs {counts[tag]} times, expected {times}"
            for tag, times in expected.items()
            if counts[tag] != times
        ]
        last = segments[-1] if segments else ""
        if boxed(last[last.rfind(self.answer.open) :]) is None:
            problems.append("the answer is not in a box")
        return problems


def boxed(text: str) -> str | None:
    r"""What the last ``\boxed{…}`` of a text holds, braces inside it matched; None without a complete one."""
    start = text.rfind(_BOX)
    if start < 0:
        return None
    inside = text[start + len(_BOX) :]
    depth = 1
    for position, char in enumerate(inside):
        depth += (char == "{") - (char == "}")
        if depth == 0:
            return inside[:position]
    return None


RESEARCH = ReSearch(
    name="research",
    query=TagPair("<search>", "</search>"),
    documents=TagPair("<result>", "</result>"),
    thinks_each_turn=True,
)
"""ReSearch's tags."""

"""The dialect of R1-Searcher: the model thinks and searches in one block of reasoning, then answers.

A response is one block ``<think> … </think>`` with the queries inside it, then one block
``<answer> … </answer>`` that ends it. The prompt ends in ``<think>``, so the model's
first segment continues the reasoning. A malformed segment ends the episode: in the
authors' rollout, text that stops at neither tag is where generation ends.

Two spellings of the same protocol: the paper's tags, and the tags with pipes that the
authors' released checkpoints write for queries and documents.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from search_env.dialects.base import PromptStyle
from search_env.dialects.tagged import TaggedDialect, TagPair
from search_env.types import Action, ActionKind, Prompt

__all__ = ["R1_SEARCHER", "R1_SEARCHER_PIPES", "R1Searcher"]

_RULES = """\
- Think first, answer last. The reasoning goes inside {think}, the final answer inside {answer}, in this shape:
{think_open} the reasoning {think_close}

{answer_open} the final answer {answer_close}
- The answer is a few words, or yes or no where the question asks for that, without explanation.
- Whenever the reasoning meets a fact that is not certain, search for it: {query_open} keywords {query_close}
- A query holds keywords only, no sentence, and asks for one triple: one relation of one subject. A question that \
needs several facts takes several queries, one after the other.
- The search system replies inside {documents}. Read what it found, then go on reasoning. Never write documents \
yourself."""


@dataclass(frozen=True, kw_only=True)
class R1Searcher(TaggedDialect):
    """R1-Searcher's protocol in one spelling of its tags.

    Example:
        >>> R1_SEARCHER.parse("Who led it? <begin_of_query> Oslo mayor <end_of_query>").text
        'Oslo mayor'
        >>> R1_SEARCHER.judge_format(["It is Oslo. </think> <answer> Oslo </answer>"]).ok
        True
    """

    default_prefill: str = "<think>"

    def render_notice(self, action: Action) -> str | None:
        """None: a malformed segment ends the episode."""
        return None

    def _worded(self, question: str, style: PromptStyle) -> Prompt:
        if style is PromptStyle.BARE:
            return Prompt(user=f"Question: {question}\n", prefill=self.prefill)
        if style is PromptStyle.INSTRUCT:
            system = f"You answer questions with the help of a search system. Keep to these rules:\n{self._rules()}"
            return Prompt(system=system, user=question, prefill=self.prefill)
        opening = (
            "A user puts a question to an assistant, which answers it with the help of a search system. "
            f"The assistant keeps to these rules:\n{self._rules()}"
        )
        return Prompt(user=f"{opening}\n\nUser: {question}\nAssistant: ", prefill=self.prefill)

    def _rules(self) -> str:
        return _RULES.format(
            think=" ".join(self.think),
            think_open=self.think.open,
            think_close=self.think.close,
            answer=" ".join(self.answer),
            answer_open=self.answer.open,
            answer_close=self.answer.close,
            query_open=self.query.open,
            query_close=self.query.close,
            documents=" ".join(self.documents),
        )

    @staticmethod
    def _document_line(rank: int, title: str, text: str) -> str:
        return f"({rank}) {title}: {text}" if title else f"({rank}) {text}"

    @cached_property
    def _frame(self) -> tuple[str, str, str]:
        return f"\n\n{self.documents.open}\n", "\n", f"\n{self.documents.close}\n\n"

    def _structure_problems(self, segments: Sequence[str], actions: Sequence[Action]) -> list[str]:
        # Joined by a line break, so that no tag can form across two segments.
        response = "\n".join(segments)
        found = self._tag_pattern.findall(response)
        searches = sum(action.kind is ActionKind.SEARCH for action in actions)
        return [*self._count_problems(Counter(found), searches), *self._order_problems(response)]

    def _count_problems(self, counts: Counter[str], searches: int) -> list[str]:
        problems = [f"{tag} is for the environment to write" for tag in self.documents if counts[tag]]
        expected = {tag: 1 for tag in (*self.think, *self.answer)} | {tag: searches for tag in self.query}
        problems += [
            f"{tag} occurs {counts[tag]} times, expected {times}"
            for tag, times in expected.items()
            if counts[tag] != times
        ]
        return problems

    def _order_problems(self, response: str) -> list[str]:
        problems = []
        if not response.lstrip().startswith(self.think.open):
            problems.append(f"the response does not begin with {self.think.open}")
        thought_end = response.find(self.think.close)
        answer_begin = response.find(self.answer.open)
        if 0 <= answer_begin < thought_end:
            problems.append(f"{self.answer.open} before {self.think.close}")
        if 0 <= thought_end < max(response.rfind(self.query.open), response.rfind(self.query.close)):
            problems.append(f"a query after {self.think.close}")
        return problems


R1_SEARCHER = R1Searcher(
    name="r1-searcher",
    query=TagPair("<begin_of_query>", "<end_of_query>"),
    documents=TagPair("<begin_of_documents>", "<end_of_documents>"),
)
"""The paper's tags."""

R1_SEARCHER_PIPES = R1Searcher(
    name="r1-searcher-pipes",
    query=TagPair("<|begin_of_query|>", "<|end_of_query|>"),
    documents=TagPair("<|begin_of_documents|>", "<|end_of_documents|>"),
)
"""The tags that the authors' released checkpoints write."""

"""Episodes written from a set's own annotation, for a model that cannot search by itself yet to begin with.

Many sets tell which look-ups, or which passages, lead to an answer. Followed in that order they make an episode that
searches as it should: it names what it looks for, asks for it, and answers once everything was found. The retriever is
asked first, so that an episode whose passages do not come is not written. A title is looked up only after the question
or a passage has named it, for a reader could not know it otherwise; look-ups that a set words itself are taken as they
are.

A model that has imitated them has seen annotated ways to the answers, which a model that is trained by reward alone has
not. Results that begin with them say so.
"""

from __future__ import annotations

from collections.abc import Sequence

from search_agents.engines.scripted import ScriptedEngine
from search_agents.methods.base import begin_query, open_answer
from search_agents.methods.floor_and_ceiling import holds
from search_env.dialects import Dialect, make_inert
from search_env.episode import Rules
from search_env.metrics import mentions
from search_env.retrieval.base import Retriever
from search_env.types import ActionKind, Document, Hop, Question

__all__ = ["Demonstrator", "is_annotated"]


class Demonstrator(ScriptedEngine):
    """Plays the demonstrations of questions; of a question without one it says nothing, which is never right.

    Args:
        questions: With their annotation.
        retriever: Must find the passages.
        rules: Dialect and prompt of the episodes.
        top_k: Passages of a search.

    Raises:
        RetrieverUnavailable: If the search failed.
    """

    def __init__(self, questions: Sequence[Question], retriever: Retriever, rules: Rules, *, top_k: int) -> None:
        super().__init__({})
        written = [(question, _way(question), _segments(question, rules)) for question in questions]
        asked = [[rules.dialect.parse(segment) for segment in segments[:-1]] for _, _, segments in written]
        found = iter(retriever.search([action.text for actions in asked for action in actions], top_k))
        self._by_prompt: dict[str, list[str]] = {}
        for (question, way, segments), actions in zip(written, asked, strict=True):
            read = [[hit.document for hit in next(found)] for _ in actions]
            if all(action.kind is ActionKind.SEARCH for action in actions) and _leads_on(question, way, read):
                prompt = rules.dialect.prompt(question.text, rules.style).text
                self._by_prompt.setdefault(self.tokenizer.decode(self.tokenizer.encode(prompt)), segments)

    def _script(self, prompt: Sequence[int]) -> Sequence[str]:
        return self._by_prompt.get(self.tokenizer.decode(prompt), ())


def is_annotated(question: Question) -> bool:
    """Whether the set tells how a question can be answered."""
    return bool(question.decomposition or question.gold_titles)


def _way(question: Question) -> list[Hop]:
    """The look-ups in an order in which they can be made; none if the set tells nothing of them."""
    if question.decomposition:
        return list(question.decomposition)
    titles = sorted(question.gold_titles, key=lambda title: not _names(question.text, title))  # stable
    way = [Hop(query=title, answer=title) for title in titles]
    if way and not _names(question.text, titles[0]):
        way[0] = Hop(query=question.text, answer=titles[0])
    return way


def _leads_on(question: Question, way: Sequence[Hop], read: Sequence[Sequence[Document]]) -> bool:
    """Whether every look-up finds what it should, and none asks for a title that nothing has named."""
    by_title = not question.decomposition
    known = question.text
    for hop, documents in zip(way, read, strict=True):
        if by_title and not _names(known, hop.query) and hop.query != question.text:
            return False
        if not any(holds(document, hop, by_title=by_title) for document in documents):
            return False
        known += "".join(f"\n{document.title}\n{document.text}" for document in documents)
    return bool(way)


def _names(text: str, title: str) -> bool:
    """Whether a text names what a title stands for: "The Verdict" does for "The Verdict (1982 film)"."""
    return mentions(text, title.partition(" (")[0])


def _segments(question: Question, rules: Rules) -> list[str]:
    """What is said: a segment for each look-up, and the answer."""
    dialect = rules.dialect
    said = dialect.prompt("", rules.style).prefill
    # One block of reasoning for the whole response is opened once, by the prompt or here.
    begun = "" if dialect.thinks_each_turn or dialect.think.open in said else dialect.think.open
    segments = []
    for number, query in enumerate(make_inert(hop.query) for hop in _way(question)):
        thought = f"{'Next I' if number else 'I'} need to find {query.rstrip(' .?')}."
        opening = "" if number else begun
        tags = begin_query(dialect, said + opening)
        segments.append(f"{opening}{_after(thought, tags, dialect)} {query} {dialect.query.close}")
        said += segments[-1] + dialect.documents.close  # what matters of the documents is that they end a turn
    tags = _after("That is all I need.", open_answer(dialect, said), dialect)
    return [*segments, f"{tags} {dialect.answer_body(make_inert(question.answers[0]))} {dialect.answer.close}"]


def _after(thought: str, tags: str, dialect: Dialect) -> str:
    """A thought and the tags that follow it, or stand around it."""
    around = dialect.think.open + dialect.think.close
    if tags.startswith(around):
        return f"{dialect.think.open} {thought} {dialect.think.close}{tags.removeprefix(around)}"
    return f" {thought} {tags}"

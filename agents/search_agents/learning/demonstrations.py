"""Episodes written from a set's own annotation, for a model that cannot search by itself yet to begin with.

Many sets tell which look-ups, or which passages, lead to an answer. Followed in that order they make an episode that
searches as it should: it names what it looks for, asks for it, and answers once everything was found. The retriever is
asked, so that an episode whose passages do not come is not written; and a title is looked up only after the question or
a passage has named it, so that nothing is asked for which a reader could not know.

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
from search_env.types import Document, Hop, Question

__all__ = ["Demonstrator", "demonstrations"]


class Demonstrator(ScriptedEngine):
    """Plays the demonstrations of questions; of a question without one it says nothing, which is never right.

    Args:
        questions: With their annotation.
        retriever: Must find the passages.
        rules: Dialect and prompt of the episodes.
        top_k: Passages of a search.
    """

    def __init__(self, questions: Sequence[Question], retriever: Retriever, rules: Rules, *, top_k: int) -> None:
        super().__init__(demonstrations(questions, retriever, rules, top_k=top_k))


def demonstrations(
    questions: Sequence[Question], retriever: Retriever, rules: Rules, *, top_k: int
) -> dict[str, list[str]]:
    """What is said in the episodes of those questions that have one.

    Args:
        questions: With their annotation.
        retriever: Must find the passages.
        rules: Dialect and prompt of the episodes.
        top_k: Passages of a search.

    Returns:
        By the question's text, the segments of the episode in their order.

    Raises:
        RetrieverUnavailable: If the search failed.
    """
    ways = [_way(question) for question in questions]
    found = iter(retriever.search([hop.query for way in ways for hop in way], top_k))
    told = {}
    for question, way in zip(questions, ways, strict=True):
        read = [[hit.document for hit in next(found)] for _ in way]
        if _leads_on(question, way, read):
            told[question.text] = _segments([hop.query for hop in way], question.answers[0], rules)
    return told


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


def _segments(queries: Sequence[str], answer: str, rules: Rules) -> list[str]:
    dialect = rules.dialect
    said = dialect.prompt("", rules.style).prefill
    segments = []
    for number, query in enumerate(map(make_inert, queries)):
        thought = f"{'Next I' if number else 'I'} need to find {query.rstrip(' .?')}."
        segments.append(f"{_after(thought, begin_query(dialect, said), dialect)} {query} {dialect.query.close}")
        said += segments[-1] + dialect.documents.close  # what matters of the documents is that they end a turn
    opening = _after("That is all I need.", open_answer(dialect, said), dialect)
    return [*segments, f"{opening} {dialect.answer_body(make_inert(answer))} {dialect.answer.close}"]


def _after(thought: str, tags: str, dialect: Dialect) -> str:
    """A thought and the tags that follow it, or stand around it."""
    around = dialect.think.open + dialect.think.close
    if tags.startswith(around):
        return f"{dialect.think.open} {thought} {dialect.think.close}{tags.removeprefix(around)}"
    return f" {thought} {tags}"

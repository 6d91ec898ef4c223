"""The text the tiny base model is pre-trained on, and what of it is learned.

Three sorts of text, about worlds other than the default environment's (people, works and
firms have other names; the few hundred place names recur with other facts):

* **Drills**: a list of random words, then the same list again, which alone is learned.
  Copying is what everything else rests on, and drills teach it fastest.
* **Fact sheets**: a few pages, then their facts in plain sentences. Facts are learned,
  pages are not: nobody can foresee a name.
* **Notebooks** of careless readers, in the form of an episode: the question, then
  searches with their documents (found by the real retriever), notes, an answer.
  Prompts and documents are never learned. What a reader *writes down* is sound: the
  note states the fact that the documents hold, a query asks for the next fact. What a
  reader *decides* is not: most answer at once from a faulty memory, and those who do
  search mostly answer with the first thing found, drift off, or break the format.

So the skills of a search agent (asking for a fact, reading it off a page, taking the
next hop, comparing two years) are all in the model, and the habit of using them is not:
`Habits` holds the probability of every decision. Notebooks that go deep follow the
hops in order to get there; their intermediate decisions are masked out of the loss, so
that depth teaches skill without teaching the habit. No question of the default
environment, train or test, occurs in any of it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from search_env.datasets.fictional_wiki import (
    EntityKind,
    QuestionKind,
    Step,
    WikiQuestion,
    World,
    generate,
    make_questions,
    make_world,
    write_pages,
)
from search_env.datasets.fictional_wiki.names import NAME_WORDS
from search_env.dialects.base import PromptStyle
from search_env.dialects.r1_searcher import R1_SEARCHER
from search_env.retrieval.base import Retriever
from search_env.retrieval.bm25 import BM25Retriever
from search_env.types import Document, Hit

__all__ = ["Habits", "Span", "Stretch", "notebooks"]

_MEMORIES = ("I remember this one.", "This is well known.", "I think I know it.")
_MOST_TURNS = 5
_COMPARISONS = (QuestionKind.COMPARISON, QuestionKind.BRIDGE_COMPARISON)


@dataclass(frozen=True, kw_only=True)
class Habits:
    """How readers decide; every field is a probability.

    What is left over is drift: half of it a query beside the question, half text that stops in mid-air.
    """

    search_first: float = 0.12
    """The first thing written is a query; else the answer comes from memory."""
    go_on: float = 0.25
    """Facts are missing and the next one is asked for."""
    answer_early: float = 0.45
    """Facts are missing and the last thing found is given as the answer."""
    finish: float = 0.60
    """Every fact is found and the right answer is given."""
    answer_beside: float = 0.12
    """Every fact is found and another name from the notes is given."""
    keep_format: float = 0.80
    """An answer is preceded by the end-of-thinking tag."""


class Span(NamedTuple):
    """A piece of a notebook."""

    text: str
    learn: bool
    """Whether its tokens are in the loss."""


class Stretch(NamedTuple):
    """What questions one stretch of the training is about."""

    shares: dict[tuple[QuestionKind, int], float]
    top_k: tuple[int, ...]
    """Numbers of documents a search may return, drawn for each notebook."""
    drills: float
    """Before each notebook a drill is written with this probability, and another with it again, and so on."""
    fact_sheets: float
    """Likewise for fact sheets."""


def notebooks(seed: int, stretch: Stretch, habits: Habits, *, people: int = 100) -> Iterator[list[Span]]:
    """Write notebooks and fact sheets without end, a new world every few hundred.

    Args:
        seed: Fixes everything.
        stretch: What to write.
        habits: How readers decide.
        people: Size of each world.
    """
    taken = frozenset(page.title for page in generate("train")[1] if " " in page.title)
    for number in range(10**9):
        world_seed = 1_000_000 * (seed + 1) + number
        rng = random.Random(f"notebooks/{world_seed}")
        world = make_world(world_seed, people, taken=taken)
        pages = list(write_pages(world, world_seed, prefix=""))
        reader = _Reader(world, BM25Retriever.in_memory(pages), habits, rng)
        for question in islice(make_questions(world, world_seed, stretch.shares), 3 * people):
            while rng.random() < stretch.drills:
                yield _drill(rng)
            while rng.random() < stretch.fact_sheets:
                yield _fact_sheet(world, pages, rng)
            yield reader.notebook(question, top_k=stretch.top_k[int(rng.random() * len(stretch.top_k))])


def _drill(rng: random.Random) -> list[Span]:
    """Eight to forty random words, and again."""
    words = "".join(f" {NAME_WORDS[int(rng.random() * len(NAME_WORDS))]}" for _ in range(8 + int(rng.random() * 33)))
    return [Span(words, learn=False), Span(words, learn=True), _END]


def _fact_sheet(world: World, pages: Sequence[Document], rng: random.Random) -> list[Span]:
    """One to three pages as a search returns them, then up to eight of their facts in any order."""
    chosen = [pages[int(rng.random() * len(pages))] for _ in range(1 + int(rng.random() * 3))]
    facts = [
        Step(page.title, relation, value).statement
        for page in dict.fromkeys(chosen)
        for relation, value in world.facts[page.title].items()
    ]
    rng.shuffle(facts)
    documents = R1_SEARCHER.render_documents([Hit(document=page, score=1.0) for page in dict.fromkeys(chosen)])
    return [Span(documents, learn=False), Span(" ".join(facts[:8]), learn=True), _END]


class _Reader:
    """Writes the notebooks about one world."""

    def __init__(self, world: World, retriever: Retriever, habits: Habits, rng: random.Random) -> None:
        self._world, self._retriever, self._habits, self._rng = world, retriever, habits, rng
        self._names = {kind: world.of_kind(kind) for kind in EntityKind}
        self._all = list(world.kinds)

    def notebook(self, question: WikiQuestion, top_k: int) -> list[Span]:
        """One reader's work on one question."""
        prompt = R1_SEARCHER.prompt(question.text, PromptStyle.BARE).text
        spans = [Span(prompt, learn=False)]
        if self._chance(0.3):
            return spans + self._careless(question, top_k)
        return spans + self._deep(question, top_k)

    def _careless(self, question: WikiQuestion, top_k: int) -> list[Span]:
        """Every decision learned, the first one included."""
        if self._chance(self._habits.search_first):
            spans = self._look_up(question.steps[0].query, top_k, learn_tag=True)
            return spans + self._go_on_carelessly(question, 0, top_k)
        memory = self._any(_MEMORIES)
        if self._chance(0.05):
            return [Span(memory, learn=True), _END]
        return [Span(memory, learn=True), *self._answer(self._guess(question))]

    def _deep(self, question: WikiQuestion, top_k: int) -> list[Span]:
        """Follow the hops to some depth, decisions masked; then decide as a careless reader does."""
        depth = len(question.steps) - 1
        if self._chance(0.55):
            depth = int(self._rng.random() * len(question.steps))
        spans = []
        for step in question.steps[:depth]:
            if self._chance(0.07):
                spans += self._look_up(self._any(self._all), top_k, learn_tag=False, learn_query=False)
                spans.append(Span(_nothing(step), learn=True))
            spans += self._look_up(step.query, top_k, learn_tag=False)
            spans.append(Span(step.statement, learn=True))
        spans += self._look_up(question.steps[depth].query, top_k, learn_tag=False)
        return spans + self._go_on_carelessly(question, depth, top_k)

    def _go_on_carelessly(self, question: WikiQuestion, found: int, top_k: int) -> list[Span]:
        """After a look-up: a note, then one decision drawn from the habits, then on from there.

        Args:
            question: The question.
            found: Index of the step that the last look-up was for.
            top_k: Documents a search returns.
        """
        spans: list[Span] = []
        noted = False
        for turn in range(_MOST_TURNS):
            step, habits = question.steps[found], self._habits
            if not noted:
                noted = any(hit.document.title == step.subject for hit in self._last_hits)
                spans.append(Span(step.statement if noted else _nothing(step), learn=True))
            done = noted and found == len(question.steps) - 1
            draw = self._rng.random()
            if done and draw < habits.finish:
                return spans + self._answer(question.answer)
            if done and draw < habits.finish + habits.answer_beside:
                return spans + self._answer(self._any([name for s in question.steps for name in (s.subject, s.object)]))
            if not done and draw < habits.go_on:
                found += noted
                noted = False
                spans += self._look_up(question.steps[found].query, top_k, learn_tag=True)
            elif not done and draw < habits.go_on + habits.answer_early:
                return spans + self._answer(self._early(question, step))
            elif self._chance(0.5) and turn < _MOST_TURNS - 1:
                spans += self._look_up(self._any(self._all), top_k, learn_tag=True)
            else:
                break
        return [*spans, _END]

    def _look_up(self, query: str, top_k: int, *, learn_tag: bool, learn_query: bool = True) -> list[Span]:
        begin, end = R1_SEARCHER.query
        self._last_hits: tuple[Hit, ...] = self._retriever.search([query], top_k)[0]
        documents = R1_SEARCHER.render_documents(self._last_hits)
        return [Span(begin, learn_tag), Span(f" {query}{end}", learn_query), Span(documents, learn=False)]

    def _answer(self, answer: str) -> list[Span]:
        close = "</think>\n" if self._chance(self._habits.keep_format) else "\n"
        return [Span(f"{close}<answer> {answer}</answer>", learn=True), _END]

    def _early(self, question: WikiQuestion, step: Step) -> str:
        """The answer of a reader who has seen enough: one of two if there are two, else the last thing found."""
        return self._guess(question) if question.kind in _COMPARISONS else step.object

    def _guess(self, question: WikiQuestion) -> str:
        """An answer of the right kind that owes nothing to the facts."""
        if question.answer in ("yes", "no"):
            return self._any(["yes", "no"])
        if question.kind in _COMPARISONS:
            return self._any(
                list(dict.fromkeys(step.subject for step in question.steps if step.subject in question.text))
            )
        if question.answer.isdigit():
            return str(1800 + int(self._rng.random() * 200))
        return self._any(self._names[self._world.kinds[question.answer]])

    def _any(self, items: Sequence[str]) -> str:
        return items[int(self._rng.random() * len(items))]

    def _chance(self, probability: float) -> bool:
        return self._rng.random() < probability


def _nothing(step: Step) -> str:
    return f"There is nothing about {step.subject} here."


_END = Span("", learn=True)
"""The end of text; the trainer writes its token."""

"""FictionalWiki: an encyclopaedia of things that do not exist, and questions about it.

No model can know its answers by heart, so searching is the only way. Train and test
questions are about two worlds that share no entity; their pages are pooled into one
corpus, so each is the other's haystack. Dev questions, to choose settings by, are other
questions about the world of the test questions. `write_fictional_wiki` makes as many such worlds
as it takes for a corpus of up to millions of pages.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from search_env.datasets.base import Dataset
from search_env.datasets.fictional_wiki.pages import write_pages
from search_env.datasets.fictional_wiki.questions import KIND_SHARES, QuestionKind, Step, WikiQuestion, make_questions
from search_env.datasets.fictional_wiki.scale import WrittenWiki, write_fictional_wiki
from search_env.datasets.fictional_wiki.world import EntityKind, Relation, World, make_world
from search_env.errors import ConfigError, unknown_split
from search_env.types import Document

__all__ = [
    "KIND_SHARES",
    "EntityKind",
    "QuestionKind",
    "Relation",
    "Step",
    "WikiQuestion",
    "World",
    "WrittenWiki",
    "generate",
    "load",
    "make_questions",
    "make_world",
    "write_fictional_wiki",
    "write_pages",
]

SPLITS = ("train", "dev", "test")
DEFAULT_PEOPLE = 400
DEFAULT_QUESTIONS = {"train": 4000, "dev": 400, "test": 400}


def generate(
    split: str, *, seed: int = 0, people: int = DEFAULT_PEOPLE, questions: int | None = None
) -> tuple[list[WikiQuestion], list[Document]]:
    """Make the questions of one split and the corpus of all.

    Args:
        split: ``"train"``, ``"dev"`` or ``"test"``; what training questions are about occurs in no other ones.
        seed: Any integer; the same arguments give the same text on any machine.
        people: Number of people in each of the two worlds, at least 20; the corpus has about five times as many pages.
        questions: Number of questions; a small world may hold fewer.

    Returns:
        The questions with their hops, and the documents.

    Raises:
        ConfigError: If the split is unknown.
    """
    if split not in SPLITS:
        raise ConfigError(unknown_split(split, SPLITS))
    count = DEFAULT_QUESTIONS[split] if questions is None else questions
    train = make_world(2 * seed, people)
    worlds = {"train": train, "test": make_world(2 * seed + 1, people, taken=train.kinds)}
    documents = [page for name, world in worlds.items() for page in write_pages(world, seed, prefix=name)]
    if split == "dev":  # goes on where as many test questions end
        return list(islice(make_questions(worlds["test"], seed), count, 2 * count)), documents
    return list(islice(make_questions(worlds[split], seed), count)), documents


def load(split: str, data: str | Path | None = None) -> Dataset:
    """Load FictionalWiki as a `Dataset`.

    Args:
        split: ``"train"``, ``"dev"`` or ``"test"``.
        data: Nothing, or settings as ``"seed=1,people=1000,questions=500"``.

    Raises:
        ConfigError: If the split or a setting is unknown.
    """
    settings = _settings(data)
    questions, documents = generate(split, **settings)
    return Dataset(
        name="fictional-wiki",
        split=split,
        questions=tuple(question.to_question(f"{split}-{number:05d}") for number, question in enumerate(questions)),
        documents=tuple(documents),
    )


def _settings(data: str | Path | None) -> dict[str, int]:
    allowed = ("seed", "people", "questions")
    settings: dict[str, int] = {}
    for item in str(data).split(",") if data else ():
        key, _, value = item.partition("=")
        if key.strip() not in allowed or not value.strip().isdigit():
            raise ConfigError(
                f"cannot read {item!r} in data={str(data)!r} of fictional-wiki: expected settings such as "
                f"data='seed=1,people=1000' with whole numbers for {', '.join(allowed)}."
            )
        settings[key.strip()] = int(value)
    return settings

"""What a dataset is: questions and, if it has one, the corpus that answers them, immutable and hashed.

The fingerprint covers both, so a score can name exactly what was asked and searched; the
corpus has one of its own.
"""

from __future__ import annotations

import hashlib
import json
import operator
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, SupportsIndex

import numpy as np

from search_env.datasets.rows import SkippedRows
from search_env.errors import ConfigError, DatasetError
from search_env.types import Document, Question

__all__ = ["Dataset", "Loader"]


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """One split of a question set with the corpus its questions are asked over.

    Raises:
        DatasetError: If there are no questions, or an id is used twice.

    Example:
        >>> oslo = Document(id="1", title="Oslo", text="Capital of Norway.")
        >>> capital = Question(id="q1", text="What is Norway's capital?", answers=("Oslo",))
        >>> dataset = Dataset(name="capitals", split="dev", questions=(capital,), documents=(oslo,))
        >>> dataset.question("q1") is dataset.question(0)
        True
    """

    name: str
    """Name of the question set."""
    split: str
    """Name of the split: ``train``, ``dev`` …"""
    questions: tuple[Question, ...]
    """The questions of the split, in the order of their source."""
    documents: tuple[Document, ...] = ()
    """The corpus: everything a search can find. Empty for questions that an engine with its own documents answers."""

    def __post_init__(self) -> None:
        if not self.questions:
            raise DatasetError(f"dataset {self.name!r} has no questions; give it at least one")
        for what, items in (("questions", self.questions), ("documents", self.documents)):
            ids = {item.id for item in items}
            if len(ids) < len(items):
                raise DatasetError(f"dataset {self.name!r}: {len(items)} {what} share {len(ids)} ids; make ids unique")

    def __deepcopy__(self, memo: dict[int, Any]) -> Dataset:
        # Gymnasium deep-copies an environment's arguments each time its spec is read.
        return self

    @cached_property
    def fingerprint(self) -> str:
        """Hash of every question and document, 16 hex digits; ids, texts, answers and order all count."""
        return _digest((*self.questions, *self.documents))

    @cached_property
    def corpus_fingerprint(self) -> str | None:
        """Hash of the documents alone, 16 hex digits, so that scores on different questions can name one corpus.

        The order of the documents does not count: it changes no search. None if there are none.
        """
        return _digest(sorted(self.documents, key=operator.attrgetter("id"))) if self.documents else None

    def question(self, key: str | SupportsIndex) -> Question:
        """Look up a question.

        Args:
            key: Its id, or its index from 0.

        Raises:
            ConfigError: If there is no such question.
        """
        if isinstance(key, str):
            if key not in self._by_id:
                raise ConfigError(
                    f"no question with id {key!r} in {self.name}/{self.split}, which has {len(self.questions)}; "
                    f"the first is {self.questions[0].id!r}. Give an id or an index from 0."
                )
            return self._by_id[key]
        try:
            index = operator.index(key)
        except TypeError:
            raise ConfigError(f"a question is chosen by its id (str) or index (int), got {key!r}") from None
        if not 0 <= index < len(self.questions):
            raise ConfigError(
                f"no question with index {index} in {self.name}/{self.split}; give 0 to {len(self.questions) - 1}"
            )
        return self.questions[index]

    def draw(self, rng: np.random.Generator) -> Question:
        """Draw a question uniformly."""
        return self.questions[int(rng.integers(len(self.questions)))]

    @cached_property
    def _by_id(self) -> dict[str, Question]:
        return {question.id: question for question in self.questions}


def _digest(items: Iterable[Question | Document]) -> str:
    digest = hashlib.sha256()
    for item in items:
        digest.update(json.dumps(asdict(item), sort_keys=True).encode())
    return digest.hexdigest()[:16]


Loader = Callable[[str, str | Path | None, SkippedRows | None], Dataset]
"""Loads a dataset: split, location of the data (None: the loader's own) and what takes the malformed rows (None: there
must be none) in, `Dataset` out."""

"""Question sets that others publish, and the places where one may lie.

Whatever the place, the result is the same `Dataset`: the publishers' own file, a folder
of them, the Hugging Face hub at a pinned revision, or our JSON lines. Where the rows
carry passages, these are pooled and deduplicated into the corpus; a document's id is a
hash of its words, the same whichever source, split or order it came from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from search_env.datasets.base import Dataset
from search_env.datasets.files import find_file, plain_name, read_bytes
from search_env.datasets.jsonl import corpus_beside, read_file, read_folder
from search_env.datasets.rows import Row, SkippedRows, parse_json
from search_env.errors import ConfigError, DatasetError, MissingDependencyError, unknown_split
from search_env.types import Document, Question

__all__ = ["Example", "HubCopy", "PublishedSet", "Sentences", "json_list", "make_document", "pairs"]


class Example(NamedTuple):
    """One row of a published set."""

    question: Question
    documents: tuple[Document, ...]
    """The passages that come with it."""


@dataclass(frozen=True, kw_only=True)
class HubCopy:
    """Where the Hugging Face hub holds a set."""

    id: str
    revision: str | None
    """The commit that is read, so that a later change of the copy cannot change a score; None if whoever loads it
    must name one."""
    splits: Mapping[str, Any]
    """Our name of a split -> the arguments of ``datasets.load_dataset`` that choose it."""
    official_row: Callable[[dict[str, Any]], dict[str, Any]] = dict
    """Gives a row of the copy the shape of the publishers' own."""


@dataclass(frozen=True, kw_only=True)
class PublishedSet:
    """A question set and how its rows are read."""

    name: str
    """In ids of environments and results."""
    title: str
    """As its authors write it."""
    home: str
    """Where the publishers' files are."""
    files: Mapping[str, tuple[str, ...]]
    """Split -> names of the publishers' files for it, the preferred one first."""
    read_file: Callable[[Path, SkippedRows], Iterator[Row]]
    """Reads a publishers' file; the second argument takes the malformed rows."""
    read_row: Callable[[Row], Example | None]
    """Reads a row; None for one that is no question."""
    hub: HubCopy

    def load(self, split: str, data: str | Path | None, skipped: SkippedRows | None = None) -> Dataset:
        """Load a split.

        Args:
            split: One of `files`; in a folder of JSON lines the name of any of its files. A single file is one split
                already and is used whatever this says.
            data: The hub id, perhaps with ``@REVISION``; a publishers' file; a file of our JSON lines, perhaps with
                ``corpus.jsonl`` beside it; or a folder.
            skipped: Counts the malformed rows that are left out; None if there must be none.

        Raises:
            DatasetError: If there is no data, or a row is malformed; the message names file and line or row.
            ConfigError: If there is no such split.
            MissingDependencyError: If the hub is asked for and ``datasets`` is not installed.
        """
        if data is None:
            raise DatasetError(f"{self.title} is not shipped with search-env. {self._sources}")
        path, skipped = Path(data), SkippedRows() if skipped is None else skipped
        if path.is_dir():
            questions, documents = self._read_folder(path, split, skipped)
        elif path.is_file():
            questions, documents = self._read_one_file(path, skipped)
        elif str(data).partition("@")[0] == self.hub.id:
            rows = self._hub_rows(split, str(data).partition("@")[2] or self.hub.revision)
            questions, documents = self._pool(rows, skipped)
        else:
            raise DatasetError(f"{self.title}: there is no file or folder {str(data)!r}. {self._sources}")
        return Dataset(name=self.name, split=split, questions=questions, documents=documents)

    def _read_folder(
        self, folder: Path, split: str, skipped: SkippedRows
    ) -> tuple[tuple[Question, ...], tuple[Document, ...]]:
        for name in self.files.get(split, ()):
            if (found := find_file(folder / name)) is not None:
                return self._read_one_file(found, skipped)
        if not any(find_file(folder / name) for names in self.files.values() for name in names) and any(
            folder.glob("*.jsonl*")
        ):
            return read_folder(folder, split, skipped)
        if split not in self.files:
            raise ConfigError(f"{self.title}: {unknown_split(split, self.files)}")
        wanted = " nor ".join((*self.files[split], f"{split}.jsonl"))
        raise DatasetError(f"{self.title}: folder {str(folder)!r} holds neither {wanted}. {self._sources}")

    def _read_one_file(self, path: Path, skipped: SkippedRows) -> tuple[tuple[Question, ...], tuple[Document, ...]]:
        publishers = {name for names in self.files.values() for name in names}
        name = plain_name(path)
        if name not in publishers and name.endswith(".jsonl"):
            return read_file(path, skipped)
        questions, documents = self._pool(self.read_file(path, skipped), skipped)
        return questions, documents or corpus_beside(path, skipped)

    def _pool(self, rows: Iterable[Row], skipped: SkippedRows) -> tuple[tuple[Question, ...], tuple[Document, ...]]:
        """Questions, and the corpus of all their passages."""
        questions: list[Question] = []
        documents: dict[str, Document] = {}
        seen: dict[str, str] = {}
        for row in rows:
            if (example := skipped.read(self.read_row, row)) is not None:
                row.take_id(example.question.id, seen)
                questions.append(example.question)
                for document in example.documents:
                    documents.setdefault(document.id, document)
        return tuple(questions), tuple(documents.values())

    def _hub_rows(self, split: str, revision: str | None) -> Iterator[Row]:
        if split not in self.hub.splits:
            raise ConfigError(f"{self.title}: {unknown_split(split, self.hub.splits)}")
        if revision is None:
            raise ConfigError(
                f"{self.title}: name the revision of {self.hub.id} to read, so that the score can be repeated: "
                f'data="{self.hub.id}@COMMIT"; the hub shows it under Files and versions'
            )
        try:
            from datasets import load_dataset
        except ImportError as error:
            raise MissingDependencyError(
                f"reading {self.hub.id} from the hub needs the package datasets: pip install 'search-env[hub]'"
            ) from error
        try:
            rows = load_dataset(self.hub.id, **self.hub.splits[split], revision=revision)
        except Exception as error:  # whatever the library's network, cache and parser raise means the same to the user
            reason = f"{type(error).__name__}: {error}"
            raise DatasetError(
                f"{self.hub.id} cannot be had from the hub ({reason}). Check the network, or take the files. "
                f"{self._sources}"
            ) from None
        for number, row in enumerate(rows, start=1):
            yield Row(f"{self.hub.id}/{split}: row {number}", self.hub.official_row(row), number)

    @property
    def _sources(self) -> str:
        names = " or ".join(names[0] for names in self.files.values())
        hub = self.hub.id if self.hub.revision else f"{self.hub.id}@COMMIT"
        own = " and ".join((*(f"{split}.jsonl" for split in self.files), "corpus.jsonl"))
        return f"""Give one of these as data:
  data="{hub}"  downloads it from the Hugging Face hub; needs pip install 'search-env[hub]'
  data="FILE"  a file of its authors, {names}, from {self.home}
  data="FOLDER"  a folder with their files, or with {own}
                   (no corpus.jsonl for a retriever that has documents of its own)"""


def json_list(path: Path, skipped: SkippedRows) -> Iterator[Row]:
    """The rows of a file that is one JSON list of objects."""
    values = parse_json(read_bytes(path), path)
    if not isinstance(values, list):
        raise DatasetError(f"{path}:1: must be a JSON list of objects; JSON lines belong in a file named *.jsonl")
    for number, value in enumerate(values, start=1):
        if (row := skipped.read(partial(Row.of, f"{path}: row {number}"), value)) is not None:
            yield row


class Sentences:
    """How HotpotQA and 2WikiMultiHopQA write passages: ``context`` and ``supporting_facts``."""

    @staticmethod
    def gold_titles(row: Row) -> tuple[str, ...]:
        """Titles of the supporting facts, in their order."""
        titles = (row.check_text("supporting_facts", title) for title, _ in pairs(row, "supporting_facts"))
        return tuple(dict.fromkeys(titles))

    @staticmethod
    def documents(row: Row, prefix: str) -> tuple[Document, ...]:
        """The passages of a row, those without text left out."""
        documents = []
        for title, sentences in pairs(row, "context"):
            if not isinstance(sentences, list | tuple):
                raise row.error(f"'context' of {title!r} must hold a list of sentences")
            text = " ".join(row.check_text("context", sentence).strip() for sentence in sentences).strip()
            documents.append(make_document(prefix, row.check_text("context", title), text))
        return tuple(document for document in documents if document.text)


def pairs(row: Row, key: str) -> list[tuple[Any, Any]]:
    """A field that holds pairs.

    Raises:
        DatasetError: If it holds anything else.
    """
    value = row.get(key)
    if not isinstance(value, list) or not all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in value):
        raise row.error(f"{key!r} must be a list of pairs that begin with a title")
    return [(first, second) for first, second in value]


def make_document(prefix: str, title: str, text: str) -> Document:
    """A document whose id is a hash of its words."""
    digest = hashlib.sha256(f"{title}\n{text}".encode()).hexdigest()
    return Document(id=f"{prefix}-{digest[:16]}", title=title, text=text)

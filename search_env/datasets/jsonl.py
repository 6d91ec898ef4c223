"""Questions and corpora as JSON lines, checked row by row.

One object a line. Questions: ``{"id", "question", "answers": […]}``, and if known
``"type"``, ``"level"``, ``"hops"``, ``"gold_titles": […]``, and the way to the answer:
``"decomposition": [{"question", "answer"}, …]`` or ``"evidences": [[subject, relation,
object], …]``. Documents: ``{"id", "title", "text"}``. Other keys are ignored. A byte order
mark, CRLF line ends and empty lines are tolerated, and a file may be compressed; anything
else that is wrong is a `DatasetError` which starts with ``file:line:``. Nothing malformed
is skipped unless asked for: a silently smaller dataset would make scores incomparable.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from search_env.datasets.corpora import stream_corpus
from search_env.datasets.decomposition import read_subquestions, read_triples
from search_env.datasets.files import find_file, plain_name
from search_env.datasets.rows import Row, SkippedRows, describe_value, read_rows
from search_env.errors import ConfigError, DatasetError, unknown_split
from search_env.types import Document, Question

__all__ = [
    "corpus_beside",
    "question_fields",
    "read_corpus",
    "read_file",
    "read_folder",
    "read_questions",
    "write_corpus",
    "write_folder",
]

_ROW = 'one {"id", "question", "answers"} object a line'


def read_questions(path: str | Path, skipped: SkippedRows | None = None) -> tuple[Question, ...]:
    """Read questions.

    Args:
        path: The file.
        skipped: Counts the malformed rows that are left out; None if there must be none.

    Raises:
        DatasetError: If a row is malformed, an id occurs twice, or there is no question.
    """
    skipped = SkippedRows() if skipped is None else skipped
    seen: dict[str, str] = {}
    questions = []
    for row in read_rows(path, skipped):
        if (question := skipped.read(_question, row)) is not None:
            row.take_id(question.id, seen)
            questions.append(question)
    if not questions:
        left_out = f" beside {skipped.count} malformed rows that were left out" if skipped.count else ""
        raise DatasetError(f"{path}:1: holds no questions{left_out}; write {_ROW}")
    return tuple(questions)


def read_corpus(path: str | Path, skipped: SkippedRows | None = None) -> tuple[Document, ...]:
    """Read documents, in any format of `search_env.datasets.corpora`; the title may be empty or missing.

    Args:
        path: The file.
        skipped: See `read_questions`.

    Raises:
        DatasetError: If a row is malformed, an id occurs twice, or there is no document.
    """
    return tuple(stream_corpus(path, skipped))


def read_folder(
    folder: str | Path, split: str, skipped: SkippedRows | None = None
) -> tuple[tuple[Question, ...], tuple[Document, ...]]:
    """Read one split of a folder ``{train,dev,…}.jsonl`` with its ``corpus.jsonl``.

    Args:
        folder: The folder.
        split: Name of a file in it, without its ending.
        skipped: Counts the malformed rows of both files that are left out; None if there must be none.

    Returns:
        Questions and documents; no documents if there is no such file, for engines that have their own.

    Raises:
        ConfigError: If the folder has no such split.
        DatasetError: If a row is malformed.
    """
    folder = Path(folder)
    found = find_file(folder / f"{split}.jsonl") if split == Path(split).name else None  # never another folder's
    if found is None or split == "corpus":
        names = {plain_name(path) for path in folder.iterdir()} - {"corpus.jsonl"}
        splits = sorted(name.removesuffix(".jsonl") for name in names if name.endswith(".jsonl"))
        if not splits:
            held = ", ".join(sorted(path.name for path in folder.iterdir())[:5]) or "nothing"
            raise ConfigError(
                f"{folder} has no questions, it holds {held}. Put them in {folder / split}.jsonl, {_ROW}, and the "
                "passages in corpus.jsonl beside it."
            )
        raise ConfigError(f"{folder}: {unknown_split(split, splits)}")
    return read_file(found, skipped)


def read_file(
    path: str | Path, skipped: SkippedRows | None = None
) -> tuple[tuple[Question, ...], tuple[Document, ...]]:
    """Read questions with the ``corpus.jsonl`` beside them; no documents if there is no such file.

    Args:
        path: The file of questions.
        skipped: See `read_folder`.

    Raises:
        DatasetError: If a row is malformed.
    """
    return read_questions(path, skipped), corpus_beside(path, skipped)


def corpus_beside(path: str | Path, skipped: SkippedRows | None = None) -> tuple[Document, ...]:
    """The documents of the ``corpus.jsonl`` beside a file, if there is one."""
    corpus = find_file(Path(path).with_name("corpus.jsonl"))
    return () if corpus is None else read_corpus(corpus, skipped)


def _question(row: Row) -> Question:
    gold_titles = row.texts("gold_titles", ())
    decomposition = read_subquestions(row, "decomposition") or read_triples(row, "evidences")
    hops = row.get("hops", len(decomposition) or len(gold_titles))
    if type(hops) is not int or hops < 0:
        raise row.error(f"'hops' must be a whole number, got {describe_value(hops)}")
    return Question(
        id=row.text("id"),
        text=row.text("question"),
        answers=row.texts("answers"),
        kind=row.text("type", ""),
        hops=hops or None,
        gold_titles=gold_titles,
        level=row.text("level", ""),
        decomposition=decomposition,
    )


def question_fields(question: Question) -> dict[str, Any]:
    """A question as `read_questions` reads it; what the set does not tell is left out."""
    fields = {
        "id": question.id,
        "question": question.text,
        "answers": list(question.answers),
        "type": question.kind,
        "level": question.level,
        "hops": question.hops,
        "gold_titles": list(question.gold_titles),
        "decomposition": [{"question": hop.query, "answer": hop.answer} for hop in question.decomposition],
    }
    return {key: value for key, value in fields.items() if value}


def write_folder(folder: str | Path, split: str, questions: Iterable[Question], documents: Iterable[Document]) -> None:
    """Write one split as `read_folder` reads it.

    A corpus that is there already, from another split, is added to: documents with an id that it has are left out.

    Raises:
        DatasetError: If the folder's corpus is malformed.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    corpus = folder / "corpus.jsonl"
    present = {document.id for document in stream_corpus(corpus)} if corpus.exists() else set()
    fresh = [document for document in documents if document.id not in present]
    _write_lines(folder / f"{split}.jsonl", "w", map(question_fields, questions))
    if fresh:
        write_corpus(corpus, fresh, mode="a")


def write_corpus(path: str | Path, documents: Iterable[Document], *, mode: Literal["w", "a"] = "w") -> None:
    """Write documents as corpora are read, or add them to a file."""
    _write_lines(Path(path), mode, map(asdict, documents))


def _write_lines(path: Path, mode: str, rows: Iterable[dict[str, Any]]) -> None:
    with path.open(mode, encoding="utf-8") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

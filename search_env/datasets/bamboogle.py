"""Bamboogle (Press et al., 2023): 125 questions of two hops that no web page answers at once.

Its authors publish a table of questions and answers, without passages: it is asked over a
corpus of your own, an index of Wikipedia, or online. The data is MIT and not shipped.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from search_env.datasets.files import read_bytes
from search_env.datasets.published import Example, HubCopy, PublishedSet
from search_env.datasets.rows import Row, SkippedRows
from search_env.errors import DatasetError
from search_env.types import Question

__all__ = ["BAMBOOGLE"]


def _read_file(path: Path, skipped: SkippedRows) -> Iterator[Row]:
    # What is not UTF-8 is found in the row that holds it.
    text = read_bytes(path).decode(errors="surrogateescape")
    table = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        columns = next(table, [])
        if not {"Question", "Answer"} <= set(columns):
            has = ascii(", ".join(columns)) if columns else "none"
            raise DatasetError(f"{path}:1: must have the columns Question and Answer, has {has}")
        for number, cells in enumerate(filter(None, table), start=1):
            if (row := skipped.read(_record, (f"{path}:{table.line_num}", columns, cells, number))) is not None:
                yield row
    except csv.Error as error:
        problem = f"not a row of a table ({error}); quote a cell that holds a quote, and double that one"
        raise DatasetError(f"{path}:{table.line_num}: {problem}") from None


def _record(given: tuple[str, list[str], list[str], int]) -> Row:
    """A row of the table, of its place, the head, its cells and its number."""
    where, columns, cells, number = given
    if len(cells) != len(columns):
        raise DatasetError(
            f"{where}: has {len(cells)} cells, and the head names {len(columns)}: {', '.join(columns)}; "
            "quote a cell that holds a comma"
        )
    try:
        "".join(cells).encode()
    except UnicodeEncodeError as error:
        byte = ord(error.object[error.start]) & 0xFF
        raise DatasetError(f"{where}: invalid UTF-8 (byte {byte:#x}); save the file as UTF-8") from None
    return Row(where, _official_row(dict(zip(columns, cells, strict=True))), number)


def _official_row(row: dict[str, Any]) -> dict[str, Any]:
    return {"question": row["Question"], "answer": row["Answer"]}


def _read_row(row: Row) -> Example:
    id_ = f"bamboogle-{row.number - 1}"  # Its place: the same whether or not a row before it is left out.
    return Example(Question(id=id_, text=row.text("question"), answers=(row.text("answer"),), hops=2), ())


BAMBOOGLE = PublishedSet(
    name="bamboogle",
    title="Bamboogle",
    home="https://github.com/ofirpress/self-ask",
    files={"dev": ("Bamboogle Prerelease - Sheet1.csv", "bamboogle.csv")},
    read_file=_read_file,
    read_row=_read_row,
    hub=HubCopy(
        id="chiayewken/bamboogle",
        revision=None,
        splits={"dev": {"split": "test"}},
        official_row=_official_row,
    ),
)

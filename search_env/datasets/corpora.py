"""Corpora of any size, read one passage at a time, in the formats that the field publishes.

A format is recognised by the first row of the file:

* ``{"id", "title", "text"}``: ours.
* ``{"id", "contents"}``: wiki-18 of FlashRAG and Search-R1, the title in quotes on the first line of the contents.
* ``{"wikipedia_id", "wikipedia_title", "text": [paragraph, …]}``: ``kilt_knowledgesource.json``, cut into windows
  of 100 words as R1-Searcher cuts it.
* ``{"id", "title", "text": [sentence, …]}``: the abstracts of 2017 that HotpotQA is asked over: a ``wiki_XX.bz2``,
  the folder of them, or the ``tar.bz2`` that holds them.
* A table with the head ``id text title``: ``psgs_w100.tsv`` of DPR.
* A table ``number, title   text`` without a head: R1-Searcher's windows, or its abstracts ``Title: … Text: …``.

Files may be compressed with gzip or bzip2. Whatever the size, 8 bytes a passage are kept:
a hash of its id, by which an id that occurs twice is found.
"""

from __future__ import annotations

import csv
import hashlib
import re
from array import array
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from search_env.datasets.files import Line, read_lines
from search_env.datasets.rows import Row, SkippedRows, describe_value, id_taken, parse_row
from search_env.errors import DatasetError
from search_env.types import Document

__all__ = ["Located", "SkippedRows", "locate_documents", "split_contents", "stream_corpus"]

WINDOW_WORDS = 100
"""Words of a window of a KILT page."""

_TABLE_HEAD = {"id", "text", "title"}
_KILT_MARKERS = re.compile("BULLET::::|Section::::")
_ABSTRACT = re.compile(r"Title: (?P<title>.*?) Text: +(?P<text>.*)")
_WINDOW = re.compile(r"(?P<title>.*?) {3}(?P<text>.*)")


class Located(NamedTuple):
    """A passage, and the place in the file that it was read from."""

    where: str
    document: Document


def stream_corpus(path: str | Path, skipped: SkippedRows | None = None) -> Iterator[Document]:
    """Read the passages of a corpus one by one; see the module for its formats.

    Args:
        path: A file, a tar archive, or a folder of ``wiki_*`` files.
        skipped: Counts the malformed rows that are left out; None if there must be none.

    Raises:
        DatasetError: If a row is malformed or there is none; and after the last passage, if an id occurs twice.
    """
    skipped = SkippedRows() if skipped is None else skipped
    hashes = array("Q")
    for _, document in locate_documents(path, skipped):
        hashes.append(_hash(document.id))
        yield document
    if not hashes:
        raise DatasetError(f'{path}:1: holds no documents; write one {{"id", "title", "text"}} object a line')
    if twice := _occurring_twice(hashes):
        _name_the_first(locate_documents(path, SkippedRows(skipped.at_most)), twice)


def locate_documents(path: str | Path, skipped: SkippedRows) -> Iterator[Located]:
    """Read passages with the place of each; their ids are not compared.

    Raises:
        DatasetError: If a row is malformed and `skipped` takes no more.
    """
    read: _Reader | None = None
    for line in read_lines(path):
        if line.data.strip():
            try:
                read = read or _recognise(line)
                documents = tuple(read(line))
            except DatasetError as error:
                skipped.add(error)
            else:
                yield from (Located(line.where, document) for document in documents)


def split_contents(contents: str) -> tuple[str, str]:
    r"""Title and text of a passage.

    Args:
        contents: ``"Title"\ntext``, with or without the quotation marks. A single line is a text without a title.

    Example:
        >>> split_contents('"Oslo"\nCapital of Norway.')
        ('Oslo', 'Capital of Norway.')
    """
    title, newline, text = contents.partition("\n")
    if not newline:
        return "", contents
    if len(title) >= 2 and title[0] == title[-1] == '"':
        title = title[1:-1]  # One mark at each end: a title may itself begin with one.
    return title, text


def _hash(document_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(document_id.encode(), digest_size=8).digest(), "little")


def _occurring_twice(hashes: array[int]) -> set[int]:
    in_order = np.frombuffer(hashes, dtype=np.uint64)
    in_order.sort()
    return set(in_order[1:][in_order[1:] == in_order[:-1]].tolist())


def _name_the_first(documents: Iterable[Located], hashes: set[int]) -> None:
    """Tell which id is used twice, if one is: different ids may have one hash."""
    seen: dict[str, str] = {}
    for where, document in documents:
        if _hash(document.id) in hashes:
            if document.id in seen:
                raise id_taken(where, document.id, seen[document.id])
            seen[document.id] = where


_Reader = Callable[[Line], Iterable[Document]]


def _recognise(line: Line) -> _Reader:
    """Choose the reader of a file by its first row."""
    cells = line.data.rstrip(b"\r").split(b"\t")
    if {cell.decode(errors="replace") for cell in cells} == _TABLE_HEAD:
        return _Table([cell.decode() for cell in cells])
    if len(cells) == 2 and cells[0].isdigit():
        return _window
    if len(cells) > 1 and not cells[0].lstrip().startswith(b"{"):
        raise DatasetError(f"{line.where}: a table must begin with the head 'id', 'text', 'title', in any order")
    fields = parse_row(line).fields
    if "contents" in fields:
        return lambda line: _wiki_18(parse_row(line))
    if "wikipedia_title" in fields:
        return lambda line: _kilt_page(parse_row(line))
    if isinstance(fields.get("text"), list):
        return lambda line: _abstract(parse_row(line))
    return lambda line: _ours(parse_row(line))


def _ours(row: Row) -> Iterator[Document]:
    yield Document(id=row.text("id"), title=row.text("title", ""), text=row.text("text"))


def _wiki_18(row: Row) -> Iterator[Document]:
    title, text = split_contents(row.text("contents"))
    if not text.strip():
        raise row.error("'contents' holds a title and no text")
    yield Document(id=row.number_or_text("id"), title=title, text=text)


def _kilt_page(row: Row) -> Iterator[Document]:
    title, page = row.text("wikipedia_title"), row.number_or_text("wikipedia_id")
    words = _KILT_MARKERS.sub("", "".join(_texts(row, "text"))).split()
    for number, start in enumerate(range(0, len(words), WINDOW_WORDS)):
        yield Document(id=f"{page}-{number}", title=title, text=" ".join(words[start : start + WINDOW_WORDS]))


def _abstract(row: Row) -> Iterator[Document]:
    text = " ".join(sentence.strip() for sentence in _texts(row, "text")).strip()
    if text:  # The dump has pages that begin with a heading.
        yield Document(id=row.number_or_text("id"), title=row.text("title"), text=text)


class _Table:
    """Reads rows under a head; each is one line, and quotes are doubled in a quoted cell."""

    def __init__(self, columns: list[str]) -> None:
        self._columns = columns
        self._head: str | None = None

    def __call__(self, line: Line) -> Iterator[Document]:
        text = _decoded(line)
        if self._head is None:
            self._head = text
        if text == self._head:  # Each file of an archive has it.
            return
        try:
            cells = next(csv.reader([text], delimiter="\t", strict=True))
        except csv.Error as error:
            raise DatasetError(
                f"{line.where}: not a row of a table ({error}); quote a cell that holds a quote"
            ) from None
        if len(cells) != len(self._columns):
            raise DatasetError(
                f"{line.where}: has {len(cells)} cells, and the head names {len(self._columns)}: "
                f"{', '.join(self._columns)}"
            )
        yield from _ours(Row(line.where, dict(zip(self._columns, cells, strict=True))))


def _window(line: Line) -> Iterator[Document]:
    number, _, rest = _decoded(line).partition("\t")
    found = _ABSTRACT.fullmatch(rest) or _WINDOW.fullmatch(rest)
    if not number.isdecimal() or found is None:
        raise DatasetError(
            f"{line.where}: must be a number, a tab, and a title and a text with three spaces between, or "
            "'Title: … Text: …'"
        )
    yield from _ours(Row(line.where, {"id": number, **found.groupdict()}))


def _decoded(line: Line) -> str:
    try:
        return line.data.rstrip(b"\r").decode()
    except UnicodeDecodeError as error:
        byte = line.data[error.start]
        raise DatasetError(f"{line.where}: invalid UTF-8 (byte {byte:#x}); save the file as UTF-8") from None


def _texts(row: Row, key: str) -> Iterator[str]:
    """A list of texts, of which some may be empty."""
    value = row.get(key)
    if not isinstance(value, list):
        raise row.error(f"{key!r} must be a list of texts, got {describe_value(value)}")
    return (row.check_text(f"{key}[]", item) for item in value)

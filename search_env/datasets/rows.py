"""Records of data files, checked field by field, and how they are read from JSON.

A byte order mark, CRLF line ends and empty lines are tolerated, and a file may be
compressed; anything else that is wrong is a `DatasetError` which starts with ``file:line:``.
A malformed row may be left out where the caller gives `SkippedRows`. What cannot be cut into
rows, such as an archive that is cut off, is an error nevertheless, and so is an id that
occurs twice: nothing tells which of the rows is meant.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from search_env.datasets.files import Line, read_lines
from search_env.errors import DatasetError

__all__ = ["Row", "SkippedRows", "describe_value", "id_taken", "parse_json", "parse_row", "read_rows"]

_REQUIRED: Any = object()
_SHOWN = 3
_Given = TypeVar("_Given")
_Made = TypeVar("_Made")


class SkippedRows:
    """Malformed rows that are left out: counted, and capped.

    Args:
        at_most: How many may be malformed; one more is an error.
    """

    def __init__(self, at_most: int = 0) -> None:
        self.at_most = at_most
        self.count = 0
        self._first: list[str] = []

    def read(self, read: Callable[[_Given], _Made], row: _Given) -> _Made | None:
        """What `read` makes of a row; None if the row is malformed and left out.

        Raises:
            DatasetError: If it is one too many.
        """
        try:
            return read(row)
        except DatasetError as error:
            self.add(error)
            return None

    def add(self, error: DatasetError) -> None:
        """Count a malformed row.

        Raises:
            DatasetError: If it is one too many.
        """
        if self.count == self.at_most:
            skipped = f" ({self._described} before it, the most allowed; the first:" if self.count else ""
            raise DatasetError("\n  ".join([f"{error}{skipped}", *self._first]) + ")" * bool(skipped)) from error
        self.count += 1
        if len(self._first) < _SHOWN:
            self._first.append(str(error))

    def __str__(self) -> str:
        return "\n  ".join([f"{self._described}; the first:", *self._first]) if self.count else "no row was malformed"

    @property
    def _described(self) -> str:
        rows = "1 malformed row was" if self.count == 1 else f"{self.count:,} malformed rows were"
        return f"{rows} left out"


@dataclass(frozen=True, slots=True)
class Row:
    """One record of a data file, with the place that error messages name."""

    where: str
    """``file:line``, or whatever finds the record."""
    fields: Mapping[str, Any]
    """The record as parsed."""
    number: int = 0
    """Its place, from 1, in a source whose records may have no ids."""

    @classmethod
    def of(cls, where: str, value: Any) -> Row:
        """The row of a value that was read from JSON.

        Raises:
            DatasetError: If it is not an object.
        """
        if not isinstance(value, dict):
            raise DatasetError(f"{where}: must be a JSON object {{…}}, got {describe_value(value)}")
        return cls(where, value)

    def error(self, problem: str) -> DatasetError:
        """An error about this row."""
        return DatasetError(f"{self.where}: {problem}")

    def text(self, key: str, default: str = _REQUIRED) -> str:
        """A field that holds text; without a default it must be there and not be empty.

        Raises:
            DatasetError: If it does not.
        """
        value = self.get(key, default)
        if default is _REQUIRED and isinstance(value, str) and not value.strip():
            raise self.error(f"{key!r} is empty; it must hold text")
        return self.check_text(key, value)

    def texts(self, key: str, default: tuple[str, ...] = _REQUIRED) -> tuple[str, ...]:
        """A field that holds a list of texts; without a default it must hold at least one, and none may be empty.

        Raises:
            DatasetError: If it does not.
        """
        value = self.get(key, default)
        if not isinstance(value, list | tuple):
            raise self.error(f'{key!r} must be a list of texts, got {describe_value(value)}; write ["…"] even for one')
        if default is _REQUIRED and not value:
            raise self.error(f"{key!r} is an empty list; it must hold at least one text")
        for item in value:
            if not self.check_text(f"{key}[]", item).strip():
                raise self.error(f"{key!r} holds an empty text; remove it")
        return tuple(value)

    def number_or_text(self, key: str) -> str:
        """A field that holds an id, which some sources write as a whole number.

        Raises:
            DatasetError: If it holds anything else.
        """
        value = self.get(key)
        return str(value) if type(value) is int else self.text(key)

    def take_id(self, id_: str, seen: dict[str, str]) -> None:
        """Note that this row has an id.

        Args:
            id_: The id.
            seen: Where each id so far was used; the new one is added.

        Raises:
            DatasetError: If an earlier row has it.
        """
        if id_ in seen:
            raise id_taken(self.where, id_, seen[id_])
        seen[id_] = self.where

    def get(self, key: str, default: Any = _REQUIRED) -> Any:
        """The raw value of a field; null counts as missing.

        Raises:
            DatasetError: If it is missing and there is no default.
        """
        value = self.fields.get(key)
        if value is not None:
            return value
        if default is _REQUIRED:
            raise self.error(f"{key!r} is missing; the row has {', '.join(map(repr, self.fields)) or 'no keys'}")
        return default

    def check_text(self, what: str, value: Any) -> str:
        """Make sure that a value is text that can be encoded.

        Raises:
            DatasetError: If it is not.
        """
        if not isinstance(value, str):
            raise self.error(f"{what!r} must be text, got {describe_value(value)}")
        try:
            value.encode()
        except UnicodeEncodeError as error:
            raise self.error(f"{what!r} holds half a surrogate pair at character {error.start}") from None
        return value


def id_taken(where: str, id_: str, first: str) -> DatasetError:
    """The error about a row whose id an earlier one has."""
    return DatasetError(f"{where}: id {id_!r} is already used at {first}; give every row its own")


def read_rows(path: str | Path, skipped: SkippedRows | None = None) -> Iterator[Row]:
    """Read the rows of a JSON lines file.

    Args:
        path: The file.
        skipped: Counts the malformed rows that are left out; None if there must be none.

    Raises:
        DatasetError: If the file cannot be read, or a line is not UTF-8 or not a JSON object.
    """
    skipped = SkippedRows() if skipped is None else skipped
    for line in read_lines(path):
        if line.data.strip() and (row := skipped.read(parse_row, line)) is not None:
            yield row


def parse_row(line: Line) -> Row:
    """Parse a line that holds a JSON object.

    Raises:
        DatasetError: If it is not UTF-8, or not a JSON object.
    """
    return Row.of(line.where, parse_json(line.data, line.path, line.number, wanted="one object a line"))


def parse_json(data: bytes, path: str | Path, line: int = 1, *, wanted: str = "") -> Any:
    """Parse UTF-8 JSON that begins at a line of a file.

    Args:
        data: The JSON.
        path: The file that holds it.
        line: Where in the file.
        wanted: What to write where this is no JSON.

    Raises:
        DatasetError: If it is not UTF-8 or not JSON; names file and line.
    """
    try:
        return json.loads(data.decode())
    except UnicodeDecodeError as error:
        line += data.count(b"\n", 0, error.start)
        problem = f"invalid UTF-8 (byte {data[error.start]:#x}); save the file as UTF-8"
    except json.JSONDecodeError as error:
        line += error.lineno - 1
        problem = f"broken JSON at column {error.colno}: {error.msg}" + (f"; write {wanted}" if wanted else "")
    except (ValueError, RecursionError) as error:
        problem = f"broken JSON: {error}"
    raise DatasetError(f"{path}:{line}: {problem}")


def describe_value(value: Any) -> str:
    """A value as error messages quote it."""
    kind = {list: "a list", dict: "an object", str: "text", bool: "true or false", int: "a number", float: "a number"}
    text = repr(value)
    return f"{kind.get(type(value), type(value).__name__)} {text if len(text) <= 40 else text[:40] + '…'}"

"""Reading data files as bytes: lines and whole files, compressed or in an archive, never all of it in memory.

gzip and bzip2 are read as they come, told by the file's first bytes. A tar archive is
read from its beginning to its end and never unpacked; a folder, file by file.
"""

from __future__ import annotations

import bz2
import codecs
import contextlib
import gzip
import io
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from search_env.errors import DatasetError

__all__ = ["Line", "data_files", "find_file", "plain_name", "read_bytes", "read_lines"]

_MAX_LINE_BYTES = 1 << 26
_MAX_GROWTH = 1000
"""Text grows by 3 to 20 times when it is decompressed; a hundred bytes of bzip2 can hold 45 million line ends."""
_ALWAYS_FITS = 1 << 20
_PARTS = "wiki_*"  # As WikiExtractor, which made the published dumps, names the files of a folder.
_MAGIC = {b"\x1f\x8b": ".gz", b"BZ": ".bz2"}
_KINDS = {".gz": "gzip", ".tgz": "gzip", ".bz2": "bzip2", ".tbz2": "bzip2"}
_COMPRESSED = (".gz", ".bz2")
_ARCHIVES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2")


class Line(NamedTuple):
    """One line of a data file, without its end."""

    path: str
    number: int
    """Counted from 1."""
    data: bytes

    @property
    def where(self) -> str:
        """``file:line``, as error messages begin."""
        return f"{self.path}:{self.number}"


def read_lines(path: str | Path) -> Iterator[Line]:
    """Read the lines of a file, of each file in a tar archive, or of each ``wiki_*`` in a folder; one at a time.

    Raises:
        DatasetError: If it cannot be read, is cut off, or a line is too long to be one row.
    """
    if str(path).endswith(_ARCHIVES):
        yield from _archived_lines(Path(path))
    else:
        for file in data_files(path):
            with _readable(file), _open(file) as opened:
                yield from _lines(opened, str(file))


def data_files(path: str | Path) -> list[Path]:
    """The file itself, or the files of a folder that hold data, in order of their paths.

    Raises:
        DatasetError: If the folder holds none.
    """
    path = Path(path)
    files = sorted(file for file in path.rglob(_PARTS) if file.is_file()) if path.is_dir() else [path]
    if not files:
        raise DatasetError(f"{path}: cannot be read: Is a directory, and no file in it is named {_PARTS}; name a file")
    return files


def find_file(path: Path) -> Path | None:
    """The file of that name, or the compressed one with ``.gz`` or ``.bz2`` after it; None if there is neither."""
    places = (path, *(path.with_name(path.name + ending) for ending in _COMPRESSED))
    return next((place for place in places if place.is_file()), None)


def plain_name(path: Path) -> str:
    """The name of a file without ``.gz`` or ``.bz2``."""
    return path.stem if path.suffix in _COMPRESSED else path.name


def read_bytes(path: str | Path) -> bytes:
    """Read a file without its byte order mark.

    Raises:
        DatasetError: If the file cannot be read.
    """
    with _readable(path), _open(Path(path)) as file:
        return file.read().removeprefix(codecs.BOM_UTF8)


def _lines(file: IO[bytes], path: str) -> Iterator[Line]:
    number = 0
    while data := file.readline(_MAX_LINE_BYTES):
        number += 1
        if len(data) == _MAX_LINE_BYTES and not data.endswith(b"\n"):
            raise DatasetError(f"{path}:{number}: is longer than {_MAX_LINE_BYTES >> 20} MiB; write one row a line")
        yield Line(path, number, (data.removeprefix(codecs.BOM_UTF8) if number == 1 else data).rstrip(b"\n"))


def _archived_lines(path: Path) -> Iterator[Line]:
    # A truncated archive would end in silence if tarfile did the decompression.
    with _readable(path), _open(path) as file, tarfile.open(fileobj=file, mode="r|") as archive:
        while (member := archive.next()) is not None:
            archive.members = []  # type: ignore[attr-defined]  # It keeps every member it has seen.
            content = archive.extractfile(member) if member.isfile() else None
            name = f"{path}/{member.name}"
            if content is not None and not Path(member.name).name.startswith("."):
                inner = _decompressed(content, Path(member.name).suffix, name, member.size)
                with _readable(name), inner or content as opened:
                    yield from _lines(opened, name)


@contextlib.contextmanager
def _readable(path: str | Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, zlib.error, tarfile.TarError) as error:
        raise _damaged(path, error) from error
    except OSError as error:
        if error.errno is None:  # What gzip and bz2 raise for bytes that are not theirs.
            raise _damaged(path, error) from error
        raise DatasetError(f"{path}: cannot be read: {error.strerror}; give the path of a data file") from error


def _damaged(path: str | Path, error: Exception) -> DatasetError:
    kind = _KINDS.get(Path(path).suffix, "data")
    return DatasetError(f"{path}: not a whole {kind} file ({error}); fetch it again")


def _open(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        suffix = _MAGIC.get(file.read(2), path.suffix)
    return _decompressed(path, suffix, str(path), path.stat().st_size) or path.open("rb")


def _decompressed(file: Path | IO[bytes], suffix: str, name: str, size: int) -> IO[bytes] | None:
    """What is in a compressed file of a size in bytes; None if it is not compressed."""
    if _KINDS.get(suffix) not in ("gzip", "bzip2"):
        return None
    opener: Any = gzip.open if _KINDS[suffix] == "gzip" else bz2.open
    return io.BufferedReader(_Bounded(opener(file, "rb"), name, size), buffer_size=1 << 17)


class _Bounded(io.RawIOBase):
    """What comes out of a compressed file, as long as it is not absurdly more than went in."""

    def __init__(self, file: IO[bytes], name: str, size: int) -> None:
        self._file, self._name = file, name
        self._left = max(_ALWAYS_FITS, size * _MAX_GROWTH)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        read: int = self._file.readinto(buffer)  # type: ignore[attr-defined]  # both kinds have it
        self._left -= read
        if self._left < 0:
            raise DatasetError(
                f"{self._name}: grows by more than {_MAX_GROWTH} times when it is decompressed, as no text does; "
                "decompress it yourself if you trust it"
            )
        return read

    def close(self) -> None:
        self._file.close()
        super().close()

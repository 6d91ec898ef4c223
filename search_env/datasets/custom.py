"""A question set of your own, as JSON lines."""

from __future__ import annotations

from pathlib import Path

from search_env.datasets.base import Dataset
from search_env.datasets.jsonl import read_file, read_folder
from search_env.datasets.rows import SkippedRows
from search_env.errors import DatasetError

__all__ = ["load"]

_FORMAT = """Give as data a folder with {split}.jsonl and corpus.jsonl, or a file of questions beside corpus.jsonl.
  questions: {{"id": "q1", "question": "…", "answers": ["…"]}}   perhaps with "type", "level", "hops", "gold_titles"
  corpus:    {{"id": "d1", "title": "…", "text": "…"}}   no such file for a retriever with documents of its own"""


def load(split: str, data: str | Path | None, skipped: SkippedRows | None = None) -> Dataset:
    """Load questions and their corpus; see `search_env.datasets.jsonl` for the format.

    Args:
        split: Name of a file of the folder, without its ending; of no meaning where data is a file.
        data: A folder or a file.
        skipped: Counts the malformed rows that are left out; None if there must be none.

    Raises:
        ConfigError: If the folder has no such split.
        DatasetError: If there is no data, or a row is malformed; the message names file and line.
    """
    if data is None:
        raise DatasetError(f"this environment plays questions of your own. {_FORMAT.format(split=split)}")
    path = Path(data)
    if path.is_dir():
        questions, documents = read_folder(path, split, skipped)
    elif path.is_file():
        questions, documents = read_file(path, skipped)
    else:
        raise DatasetError(f"there is no file or folder {str(data)!r}. {_FORMAT.format(split=split)}")
    return Dataset(name=path.stem, split=split, questions=questions, documents=documents)

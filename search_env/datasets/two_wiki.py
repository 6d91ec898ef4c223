"""2WikiMultiHopQA (Ho et al., 2020): HotpotQA's rows with the triples that lead to the answer.

Where ``id_aliases.json`` of the publishers lies beside the file, other names of the answer
count as well, as in their own scorer. The data is Apache-2.0 and not shipped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from search_env.datasets.decomposition import read_triples
from search_env.datasets.published import Example, HubCopy, PublishedSet, Sentences, json_list
from search_env.datasets.rows import Row, SkippedRows, read_rows
from search_env.types import Question

__all__ = ["TWO_WIKI"]

_ALIASES = "id_aliases.json"
_NESTED = ("context", "supporting_facts", "evidences")


def _read_file(path: Path, skipped: SkippedRows) -> Iterator[Row]:
    aliases = _read_aliases(path.with_name(_ALIASES), skipped)

    def with_aliases(row: Row) -> Row:
        return Row(row.where, {**row.fields, "aliases": aliases.get(row.text("answer_id", ""), ())})

    for row in json_list(path, skipped):
        if (made := skipped.read(with_aliases, row)) is not None:
            yield made


def _read_aliases(path: Path, skipped: SkippedRows) -> dict[str, tuple[str, ...]]:
    """Wikidata's id of an answer -> its other names and demonyms."""
    if not path.is_file():
        return {}
    named = (skipped.read(_names, row) for row in read_rows(path, skipped))
    return dict(entry for entry in named if entry is not None)


def _names(row: Row) -> tuple[str, tuple[str, ...]]:
    return row.text("Q_id"), row.texts("aliases", ()) + row.texts("demonyms", ())


def _read_row(row: Row) -> Example:
    decomposition = read_triples(row, "evidences")
    gold_titles = Sentences.gold_titles(row)
    question = Question(
        id=row.text("_id"),
        text=row.text("question"),
        answers=tuple(dict.fromkeys((row.text("answer"), *row.texts("aliases", ())))),
        kind=row.text("type", ""),
        hops=len(decomposition) or len(gold_titles) or None,
        gold_titles=gold_titles,
        decomposition=decomposition,
    )
    return Example(question, Sentences.documents(row, "2wikimultihopqa"))


def _official_row(row: dict[str, Any]) -> dict[str, Any]:
    """On the hub, nested values are JSON in text."""
    return {
        key: json.loads(value) if key in _NESTED and isinstance(value, str) else value for key, value in row.items()
    }


TWO_WIKI = PublishedSet(
    name="2wikimultihopqa",
    title="2WikiMultiHopQA",
    home="https://github.com/Alab-NII/2wikimultihop",
    files={"train": ("train.json",), "dev": ("dev.json",)},
    read_file=_read_file,
    read_row=_read_row,
    hub=HubCopy(
        id="xanhho/2WikiMultihopQA",
        revision="612bc5039a457880d9e7d84c3b0a4cf154b70e4f",
        splits={
            "train": {"data_files": {"train": "train.parquet"}, "split": "train"},
            "dev": {"data_files": {"dev": "dev.parquet"}, "split": "dev"},
        },
        official_row=_official_row,
    ),
)

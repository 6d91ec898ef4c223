"""MuSiQue (Trivedi et al., 2022): questions of two to four hops, with their sub-questions and aliases.

Only answerable questions are asked: of the full version, whose other half has no answer in
its passages, the answerable ones. The data is CC BY 4.0 and not shipped.
"""

from __future__ import annotations

from typing import Any

from search_env.datasets.decomposition import read_subquestions
from search_env.datasets.published import Example, HubCopy, PublishedSet, make_document
from search_env.datasets.rows import Row, describe_value, read_rows
from search_env.types import Document, Question

__all__ = ["MUSIQUE"]


def _read_row(row: Row) -> Example | None:
    answerable = row.get("answerable", True)
    if not isinstance(answerable, bool):
        raise row.error(f"'answerable' must be true or false, got {describe_value(answerable)}")
    if not answerable:
        return None
    id_ = row.text("id")
    decomposition = read_subquestions(row, "question_decomposition")
    paragraphs = _paragraphs(row)
    question = Question(
        id=id_,
        text=row.text("question"),
        answers=tuple(dict.fromkeys((row.text("answer"), *row.texts("answer_aliases", ())))),
        kind=id_.partition("__")[0],
        hops=len(decomposition) or None,
        gold_titles=_gold_titles(row, paragraphs),
        decomposition=decomposition,
    )
    return Example(question, tuple(document for _, document in paragraphs))


def _paragraphs(row: Row) -> list[tuple[dict[str, Any], Document]]:
    paragraphs = row.get("paragraphs")
    if not isinstance(paragraphs, list) or not all(isinstance(paragraph, dict) for paragraph in paragraphs):
        raise row.error('\'paragraphs\' must be a list of objects {"title", "paragraph_text", "is_supporting"}')
    made = []
    for paragraph in paragraphs:
        part = Row(f"{row.where}, paragraphs", paragraph)
        made.append((paragraph, make_document("musique", part.text("title"), part.text("paragraph_text"))))
    return made


def _gold_titles(row: Row, paragraphs: list[tuple[dict[str, Any], Document]]) -> tuple[str, ...]:
    """Titles of the supporting paragraphs in hop order."""
    by_index = {_index(row, paragraph, "idx"): document.title for paragraph, document in paragraphs}
    hops = row.get("question_decomposition", [])
    in_order = [by_index.get(_index(row, hop, "paragraph_support_idx")) for hop in hops]
    supporting = [document.title for paragraph, document in paragraphs if paragraph.get("is_supporting")]
    return tuple(dict.fromkeys(title for title in (*in_order, *supporting) if title is not None))


def _index(row: Row, fields: dict[str, Any], key: str) -> int | None:
    value = fields.get(key)
    if not isinstance(value, int | None):
        raise row.error(f"{key!r} must be a number, got {describe_value(value)}")
    return value


MUSIQUE = PublishedSet(
    name="musique",
    title="MuSiQue",
    home="https://github.com/StonyBrookNLP/musique",
    files={
        "train": ("musique_ans_v1.0_train.jsonl", "musique_full_v1.0_train.jsonl"),
        "dev": ("musique_ans_v1.0_dev.jsonl", "musique_full_v1.0_dev.jsonl"),
    },
    read_file=read_rows,
    read_row=_read_row,
    hub=HubCopy(
        id="bdsaglam/musique",
        revision="22873a405dd809893b22ada0b499299fb612d2df",
        splits={
            split: {"data_files": {split: f"musique_ans_v1.0_{split}.jsonl"}, "split": split}
            for split in ("train", "dev")
        },
    ),
)

"""The question lists that R1-Searcher (arXiv 2503.05592) released: both training stages, and what it was evaluated on.

Stage 1 is 200 HotpotQA and 150 2WikiMultiHopQA questions, stage 2 another 8,148; a row tells
neither its source nor its difficulty and has no passages, so the lists are asked over an
index of Wikipedia. The data is MIT and not shipped.
"""

from __future__ import annotations

from search_env.datasets.published import Example, HubCopy, PublishedSet
from search_env.datasets.rows import Row, read_rows
from search_env.types import Question

__all__ = ["R1_SEARCHER_LISTS"]

_STAGES = ("stage_1", "stage_2")
_EVALUATION = ("hotpotqa_500", "2wiki_500", "musique_500", "bamboogle")


def _read_row(row: Row) -> Example:
    id_ = row.number_or_text("idx")
    return Example(Question(id=id_, text=row.text("question"), answers=(row.text("answer"),)), ())


R1_SEARCHER_LISTS = PublishedSet(
    name="r1-searcher",
    title="R1-Searcher's released lists",
    home="https://github.com/RUCAIBox/R1-Searcher",
    files={split: (f"{split}.jsonl",) for split in (*_STAGES, *_EVALUATION)},
    read_file=read_rows,
    read_row=_read_row,
    hub=HubCopy(
        id="XXsongLALA/RAG-RL-Hotpotqa-with-2wiki",
        revision=None,
        splits={split: {"data_files": {split: f"{split}.jsonl"}, "split": split} for split in _STAGES},
    ),
)

"""HotpotQA (Yang et al., 2018), in its distractor and its full-wiki setting.

A row carries ten paragraphs; those of the distractor setting hold every gold paragraph,
those of the full-wiki setting are what a retriever found. Bridge and comparison questions
have gold titles and no decomposition. The data is CC BY-SA 4.0 and not shipped.
"""

from __future__ import annotations

from typing import Any

from search_env.datasets.published import Example, HubCopy, PublishedSet, Sentences, json_list
from search_env.datasets.rows import Row
from search_env.types import Question

__all__ = ["HOTPOTQA"]


def _read_row(row: Row) -> Example:
    gold_titles = Sentences.gold_titles(row)
    question = Question(
        id=row.text("_id"),
        text=row.text("question"),
        answers=(row.text("answer"),),
        kind=row.text("type", ""),
        hops=len(gold_titles) or None,
        gold_titles=gold_titles,
        level=row.text("level", ""),
    )
    return Example(question, Sentences.documents(row, "hotpotqa"))


def _official_row(row: dict[str, Any]) -> dict[str, Any]:
    """On the hub, lists of pairs are columns of lists."""
    context, facts = row["context"], row["supporting_facts"]
    return {
        **row,
        "_id": row["id"],
        "context": list(zip(context["title"], context["sentences"], strict=True)),
        "supporting_facts": list(zip(facts["title"], facts["sent_id"], strict=True)),
    }


HOTPOTQA = PublishedSet(
    name="hotpotqa",
    title="HotpotQA",
    home="https://hotpotqa.github.io",
    files={
        "train": ("hotpot_train_v1.1.json",),
        "dev": ("hotpot_dev_distractor_v1.json", "hotpot_dev_fullwiki_v1.json"),
    },
    read_file=json_list,
    read_row=_read_row,
    hub=HubCopy(
        id="hotpotqa/hotpot_qa",
        revision="1908d6afbbead072334abe2965f91bd2709910ab",
        splits={
            "train": {"name": "distractor", "split": "train"},
            "dev": {"name": "distractor", "split": "validation"},
        },
        official_row=_official_row,
    ),
)

"""The figures of the benchmark of compression, on documents and ranks that are known."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from search_agents.methods.recomp.selection import Candidate

from benchmarks.compression import _bm25_scores, _rank_figures, _with_gold, markdown
from search_env.retrieval import InMemoryRetriever
from search_env.types import Document, Question

DOCUMENTS = [
    Document(id=f"{number:02}", title=f"T{number}", text="word " + "film " * (number < 20)) for number in range(30)
]
BY_TITLE = {document.title: document for document in DOCUMENTS}


def test_gold_documents_that_are_not_found_stand_last_among_the_ten() -> None:
    question = Question(id="q", text="film", answers=("x",), gold_titles=("T25", "T3", "T15"))
    found = _with_gold(InMemoryRetriever(DOCUMENTS), question, BY_TITLE)
    assert [document.title for document in found] == [
        *("T0", "T1", "T2", "T3", "T4", "T5", "T6", "T7"),
        *("T15", "T25"),
    ]


def test_ranks_become_a_mean_a_share_of_first_places_and_a_recall() -> None:
    rows = [([1, 4], 2), ([2, 3], 2)]
    assert _rank_figures(rows) == {"mean_rank": 2.5, "first": 0.5, "recall": 0.5}


def test_a_sentence_that_bm25_does_not_find_scores_nothing() -> None:
    found = [Candidate("Film", "Ann made it."), Candidate("Other", "Nothing here.")]
    question = Question(id="q", text="who made the film?", answers=("Ann",))
    ((first, second),) = _bm25_scores([(question, found, (0,))])
    assert first > 0 == second


def test_the_page_has_a_table_for_each_part() -> None:
    told = dict.fromkeys(("command", "date", "machine", "versions", "processor_seconds"), "told")
    ranks = {"mean_rank": 2.0, "first": 0.5, "recall": 0.25}
    recalls = {"recall_1": 0.5, "recall_5": 1.0}
    page = markdown(
        {
            "ranking": {"questions": 2, "model": "tiny", "rows": {"chance": ranks}, **told},
            "selection": {
                **{"model": "tiny", "encoder": "small", "questions": 9, "trained_on": 5, "held_out": 3},
                "rows": {"trained": {"gain": 1.0, "hit": 0.5, **recalls}},
                "dev": {"questions": 4, "bm25": recalls},
                **told,
            },
        }
    )
    assert "| chance | 2.000 | 0.500 | 0.250 |" in page
    assert "| trained | 1.000 | 0.500 | 0.500 | 1.000 |" in page and "| bm25 | 0.500 | 1.000 |" in page

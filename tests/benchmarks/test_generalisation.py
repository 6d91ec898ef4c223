"""The measurement beyond what was trained on: its sets are what the page says, and the page is about all seeds."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from benchmarks import generalisation


def test_the_larger_encyclopaedia_has_the_same_questions_among_ten_times_the_pages() -> None:
    own, large, other = generalisation.encyclopaedias(40).values()
    assert own.questions == large.questions and large.documents == other.documents
    assert len(large.documents) == 10 * len(own.documents) and large.documents[: len(own.documents)] == own.documents
    titles = [document.title for document in large.documents]
    assert len(set(titles)) == len(titles) and len(other.questions) == 40
    assert not {title for question in other.questions for title in question.gold_titles} & set(
        document.title for document in own.documents
    )


def test_the_page_tells_mean_lowest_and_highest_of_the_seeds() -> None:
    seeds = [
        {"seed": seed, "f1": f1, "em": f1, "interval": [0, 1], "hops": {"2": {"n": 5, "f1": f1, "searches": 2.0}}}
        for seed, f1 in enumerate((0.5, 0.7))
    ]
    rows = [{"set": "A", "agent": "trained well", "seeds": seeds}, {"set": "A", "agent": "oracle", "seeds": seeds[:1]}]
    text = generalisation.page({"passages": {"A": 1000}, "rows": rows, "command": "c", "date": "d", "machine": "m"})
    assert "A: 1,000 pages" in text and "2 (n = 5) |" in text
    assert "0.600 (0.500 to 0.700)" in text and "2.000 (2.000 to 2.000)" in text

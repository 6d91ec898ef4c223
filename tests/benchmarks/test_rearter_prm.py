"""The page on ReARTeR's reward models has every collection, and says how often the trained one ranks best."""

import pytest

from benchmarks.rearter_prm import markdown, yields


def figures(trained, untrained, steps):
    return {
        "date": "2026-01-31",
        "machine": "a small one",
        "held_out": {"prefixes": 20, "right": 5},
        "training": {"prefixes": 60, "right": 22},
        "trained": {"auc": trained, "accuracy": 0.7},
        "untrained": {"auc": untrained, "accuracy": 0.25},
        "longest_first": {"auc": steps, "accuracy": 0.25},
    }


@pytest.mark.parametrize(
    ("collections", "best"),
    [
        ([(0.8, 0.5, 0.6)], 1),
        ([(0.4, 0.5, 0.3)], 0),
        ([(0.7, 0.5, 0.9), (0.8, 0.5, 0.6), (0.9, 0.2, 0.1)], 2),
    ],
)
def test_the_verdict_counts_the_collections(collections, best):
    page = markdown([figures(*aucs) for aucs in collections])
    assert f"best in {best} of {len(collections)} collections." in page
    for trained, untrained, steps in collections:
        assert f"| 60 | 22 | 20 | 5 | {trained:.3f} | {untrained:.3f} | {steps:.3f} |" in page
    assert page.count("* date: 2026-01-31\n* machine: a small one") == len(collections)
    assert f"## Collection {len(collections)}" in page


def test_where_nothing_could_be_trained_the_page_says_why_and_what_became_of_the_questions():
    found = yields([{"id": "a", "mc": 0.0, "prefixes": []}, {"id": "b"}, {"id": "c", "mc": 0.4, "prefixes": [{}, {}]}])
    assert found == {"questions": 3, "never_right": 1, "always_right": 0, "outgrew_the_budget": 1, "prefixes": 2}
    page = markdown([{"not_trained": "too few labels", **found, "date": "2026-01-31"}, figures(0.8, 0.5, 0.6)])
    assert "best in 1 of 1 collections" in page
    assert "* not_trained: too few labels" in page and "* never_right: 1" in page and "* date: 2026-01-31" in page

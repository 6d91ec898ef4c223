"""The page on ReARTeR's reward model says which one ranks best, whichever it is."""

import pytest

from benchmarks.rearter_prm import markdown, yields


def figures(trained, untrained, steps):
    counts = {"prefixes": 20, "right": 5}
    return {
        "held_out": counts,
        "training": {"prefixes": 60, "right": 22},
        "trained": {"auc": trained, "accuracy": 0.7},
        "untrained": {"auc": untrained, "accuracy": 0.25},
        "longest_first": {"auc": steps, "accuracy": 0.25},
    }


@pytest.mark.parametrize(
    ("aucs", "verdict"),
    [
        ((0.8, 0.5, 0.6), "The trained one ranks held-out prefixes best."),
        ((0.4, 0.5, 0.3), "The trained one does not rank held-out prefixes best."),
        ((0.7, 0.5, 0.9), "The trained one does not rank held-out prefixes best."),
    ],
)
def test_the_verdict_follows_the_figures(aucs, verdict):
    page = markdown(figures(*aucs), {"date": "2026-01-31", "machine": "a small one"})
    assert verdict in page
    assert "20 held-out prefixes, 5 of them right" in page and "Trained on 60 of other questions, 22 right." in page
    assert f"| trained | {aucs[0]:.3f} | 0.7 |" in page
    assert f"| number of steps | {aucs[2]:.3f} |  |" in page
    assert "* date: 2026-01-31\n* machine: a small one" in page


def test_where_nothing_could_be_trained_the_page_says_why_and_what_became_of_the_questions():
    found = yields([{"id": "a", "mc": 0.0, "prefixes": []}, {"id": "b"}, {"id": "c", "mc": 0.4, "prefixes": [{}, {}]}])
    assert found == {"questions": 3, "never_right": 1, "always_right": 0, "outgrew_the_budget": 1, "prefixes": 2}
    page = markdown({"not_trained": "too few labels", **found}, {"date": "2026-01-31"})
    assert "no process reward model could be trained" in page
    assert "* not_trained: too few labels" in page and "* never_right: 1" in page and "* date: 2026-01-31" in page

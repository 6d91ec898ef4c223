"""The page on ReARTeR's reward model says which one ranks best, whichever it is."""

import pytest

from benchmarks.rearter_prm import markdown


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

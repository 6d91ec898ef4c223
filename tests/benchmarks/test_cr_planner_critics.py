"""The page of the critics' figures claims what the pairs bear."""

import json

from benchmarks import cr_planner_critics as benchmark

ROW = {"pairs": 90, "held_out_pairs": 50, "untrained": 0.5, "in_order": 0.4, "loss": 0.3}


def test_a_gain_is_claimed_only_beyond_two_standard_errors(tmp_path):
    # With 50 pairs a side the standard error of the difference is at most 0.1.
    figures = {
        "document": {**ROW, "trained": 0.75},
        "query": {**ROW, "trained": 0.65},
        "rationale": {**ROW, "trained": 0.5},
        "other": {**ROW, "trained": 0.25},
    }
    figures["sub-goal"] = {**ROW, "held_out_pairs": 0, "trained": None, "untrained": None, "in_order": None}
    benchmark.write(tmp_path, figures, {"model": "tiny", "date": "today"})
    page = (tmp_path / "cr-planner-critics.md").read_text()
    assert "The document critic beats its untrained self (+0.250, standard error at most 0.100)." in page
    assert "The query critic is ahead of its untrained self by less than two standard errors: no claim" in page
    assert "The rationale critic does not beat its untrained self" in page
    assert "| document | 90 | 50 | 0.750 | 0.500 | 0.400 | 0.300 |" in page and "* date: today" in page
    assert "The other critic is behind its untrained self by more than two standard errors" in page
    assert "The sub-goal critic cannot be judged: no pair was held out." in page
    assert "| sub-goal | 90 | 0 |  |  |  | 0.300 |" in page
    kept = json.loads((tmp_path / "cr-planner-critics.json").read_text())
    assert "trained.sub-goal" not in kept
    assert (kept["trained.document"], kept["untrained.query"], kept["model"]) == (0.75, 0.5, "tiny")

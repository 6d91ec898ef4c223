from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_env.errors import ConfigError
from search_env.metrics import cover_bag, cover_contiguous, exact_match, f1, normalise, score

FILE = Path(__file__).parents[3] / "shared" / "data" / "r1_searcher" / "eval_results" / "hotpotqa_qwen.jsonl"


@pytest.mark.parametrize(
    ("text", "r1_searcher", "flashrag"),
    [
        ("The  U.S. Army", "u s army", "us army"),
        ("snake_case", "snake case", "snakecase"),
        ("O’Neil ‘n’ co", "o neil n co", "o’neil ‘n’ co"),
        ("A man, an oak, the theory", "man oak theory", "man oak theory"),
        ("Vitamin-A", "vitamin", "vitamina"),
        ("True", "yes", "true"),
        ("False", "no", "false"),
        ("false", "false", "false"),
        ("The!", "", ""),
        (" ÉCOLE\n東京 ", "école 東京", "école 東京"),
    ],
)
def test_the_two_normalisations(text, r1_searcher, flashrag):
    assert normalise(text) == r1_searcher
    assert normalise(text, "r1-searcher") == r1_searcher
    assert normalise(text, "flashrag") == flashrag


def test_an_unknown_normalisation_is_named():
    with pytest.raises(ConfigError, match=r"unknown normalisation 'flash'. Did you mean 'flashrag'"):
        normalise("x", "flash")


def test_exact_match_is_equality_after_normalisation_with_any_gold():
    assert exact_match("the Beatles.", ["Queen", "Beatles"]) == 1.0
    assert exact_match("Beatles band", ["Queen", "Beatles"]) == 0.0
    assert exact_match("US", ["U.S."]) == 0.0
    assert exact_match("US", ["U.S."], "flashrag") == 1.0


def test_f1_counts_common_words_over_multisets():
    assert f1("Barack Obama", ["Barack Hussein Obama"]) == pytest.approx(4 / 5)
    assert f1("new new york", ["new york"]) == pytest.approx(4 / 5)
    assert f1("Oslo", ["Bergen"]) == 0.0
    assert f1("", ["Oslo"]) == 0.0
    assert f1("the", ["a"]) == 0.0


def test_f1_takes_the_best_gold():
    assert f1("Big Apple", ["New York City", "The Big Apple"]) == 1.0


@pytest.mark.parametrize(
    ("answer", "gold"), [("yes it is", "yes"), ("no", "no doubt"), ("yes", "no"), ("noanswer", "x")]
)
def test_f1_of_a_verdict_is_all_or_nothing(answer, gold):
    # Only a text that is nothing but the verdict is one: "yes it is" shares a word with "yes", and still scores 0.
    assert f1(answer, [gold]) == 0.0
    assert f1(gold, [gold]) == 1.0


def test_the_literal_booleans_are_verdicts():
    assert score("True", ["yes"])["f1"] == 1.0
    assert score("False", ["no"])["em"] == 1.0
    assert score("True", ["yes"], "flashrag")["f1"] == 0.0


def test_cover_as_a_bag_ignores_order_and_number():
    assert cover_bag("City of New York", ["York New"]) == 1.0
    assert cover_bag("New York", ["New New York"]) == 1.0
    assert cover_bag("Yorkshire New", ["New York"]) == 0.0


def test_cover_as_a_piece_wants_the_words_in_a_row_but_no_word_boundary():
    assert cover_contiguous("City of New York", ["York New"]) == 0.0
    assert cover_contiguous("in New York City", ["new york"]) == 1.0
    assert cover_contiguous("I know", ["no"]) == 1.0
    assert cover_bag("I know", ["no"]) == 0.0


@pytest.mark.parametrize("metric", [cover_bag, cover_contiguous])
def test_a_gold_without_words_is_not_covered_by_everything(metric):
    assert metric("anything", ["The"]) == 0.0
    assert metric("a", ["The"]) == 1.0


def test_score_tells_every_metric_and_no_answer_scores_nothing():
    assert score("the Big Apple, NY", ["Big Apple"]) == {
        "em": 0.0,
        "f1": pytest.approx(4 / 5),
        "cem": 1.0,
        "cem_contiguous": 1.0,
    }
    assert score(None, ["yes"]) == {"em": 0.0, "f1": 0.0, "cem": 0.0, "cem_contiguous": 0.0}


@given(st.text(), st.lists(st.text(), min_size=1, max_size=3), st.sampled_from(["r1-searcher", "flashrag"]))
def test_metrics_agree_with_score_and_stay_in_range(answer, golds, normalisation):
    scores = score(answer, golds, normalisation)
    metrics = {"em": exact_match, "f1": f1, "cem": cover_bag, "cem_contiguous": cover_contiguous}
    assert scores == {name: metric(answer, golds, normalisation) for name, metric in metrics.items()}
    assert all(type(value) is float and 0.0 <= value <= 1.0 for value in scores.values())
    assert scores["em"] <= min(scores["cem"], scores["cem_contiguous"])


@given(st.text())
def test_a_gold_answer_matches_itself(answer):
    scores = score(answer, [answer])
    assert scores["em"] == scores["cem"] == scores["cem_contiguous"] == 1.0
    assert scores["f1"] == float(bool(normalise(answer)))


def test_the_released_trajectories_get_the_published_scores():
    if not FILE.exists():
        pytest.skip(f"the released trajectories are not at {FILE}")
    rows = [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]
    scores = [score(row["pred_ans"], [row["answer"]]) for row in rows]
    means = {name: round(100 * sum(row[name] for row in scores) / len(rows), 1) for name in scores[0]}
    assert means == {"em": 58.0, "f1": 71.9, "cem": 65.4, "cem_contiguous": 65.4}

"""What is measured beside the answers is shown, and what nobody measured is not made up."""

from __future__ import annotations

from typing import Any

from search_agents.evaluation.figures import figures

MEASURED: dict[str, Any] = {
    "searches_per_question": 2.5,
    "search_rate": 1.0,
    "redundant_query_rate": None,
    "format_rate": 0.75,
    "gold_recall": 0.8,
    "gold_recall_by_hop": {"1": 0.95, "2": 0.65},
    "gold_hit_rate": 0.97,
    "first_hit_turn": 1.25,
    "truncated": 0.04,
    "stop_reasons": {"answered": 48, "max_tokens": 2},
    "by_hops": {"2": {"f1": 0.5, "n": 30}, "4": {"f1": 0.25, "n": 20}},
    "calls_per_question": 3.5,
    "read_tokens_per_question": 812.4,
    "written_tokens_per_question": 96.0,
    "seconds_per_question": 1.239,
    "search_cost_per_question": 0.001,
    "model_cost_per_question": 0.0021,
    "cost_per_question": 0.0031,
}


def test_every_figure_is_shown() -> None:
    assert figures(MEASURED).splitlines() == [
        "searches a question 2.50, episodes that search 100.0%, right format 75.0%",
        "gold documents found 80.0% (hop 1 95.0%, hop 2 65.0%), any of a question's 97.0%, "
        "turn of the first gold document 1.25",
        "ended: answered 48, max_tokens 2, truncated by a budget 4.0%",
        "F1: 2 hops 0.500 (n 30), 4 hops 0.250 (n 20)",
        "a question: 3.50 calls, 812 tokens read, 96 written, 1.24 s, paid 0.0031 (searches 0.0010, model 0.0021 USD)",
    ]


def test_of_no_valid_episode_only_the_ends_are_told() -> None:
    unavailable = {"retriever_unavailable": 3}
    assert figures({**MEASURED, "n": 0, "stop_reasons": unavailable}) == "ended: retriever_unavailable 3"


def test_tokens_and_money_that_a_server_did_not_tell_are_dashes() -> None:
    unknown = dict.fromkeys(
        ("read_tokens_per_question", "written_tokens_per_question", "model_cost_per_question", "cost_per_question")
    )
    assert figures({**MEASURED, **unknown}).splitlines()[-1] == (
        "a question: 3.50 calls, - tokens read, - written, 1.24 s, paid - (searches 0.0010, model -)"
    )


def test_where_no_model_was_asked_only_time_and_searches_have_a_price() -> None:
    assert figures({**MEASURED, "calls_per_question": 0}).splitlines()[-1] == "a question: 1.24 s, searches paid 0.0010"


def test_a_small_price_is_not_shown_as_0() -> None:
    prices = {"search_cost_per_question": 0.0, "model_cost_per_question": 2.13e-6, "cost_per_question": 2.13e-6}
    assert figures({**MEASURED, **prices}).endswith("paid 0.0000021 USD (searches 0, model 0.0000021 USD)")


def test_what_is_not_told_is_not_shown() -> None:
    assert figures({"stop_reasons": {"answered": 4}, "by_hops": {}}) == "ended: answered 4"

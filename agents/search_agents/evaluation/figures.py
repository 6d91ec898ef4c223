"""What is measured beside the answers, in a few lines: what ``search-env eval`` and ``search-env score`` print."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

__all__ = ["COST", "SEARCHING", "figures"]

Json = Mapping[str, Any]

SEARCHING = (
    "searches_per_question",
    "search_rate",
    "redundant_query_rate",
    "format_rate",
    "gold_recall",
    "gold_recall_by_hop",
    "gold_hit_rate",
    "first_hit_turn",
    "truncated",
)
"""The figures of `Scores` that need the turns of an episode."""

COST = (
    "calls_per_question",
    "read_tokens_per_question",
    "written_tokens_per_question",
    "seconds_per_question",
    "search_cost_per_question",
    "model_cost_per_question",
    "cost_per_question",
)
"""Those that need its calls, and the time it took."""


def figures(scores: Json) -> str:
    """Searches, gold documents hop by hop, ends of episodes, F1 by hops and cost, a line each; empty if none is told.

    Args:
        scores: Scores as plain values, see `Scores.to_dict`, perhaps with ``seconds_per_question``. A figure that is
            not there is not shown; a cost that is there and not known is a dash. Of no valid episode only the ends
            are told.
    """
    if scores.get("n") == 0:
        return _ends({"stop_reasons": scores.get("stop_reasons", {})})
    return "\n".join(filter(None, (line(scores) for line in (_searches, _gold, _ends, _hops, _cost))))


def _searches(scores: Json) -> str:
    return _joined(
        _told(scores, "searches_per_question", "searches a question {:.2f}"),
        _told(scores, "search_rate", "episodes that search {:.1%}"),
        _told(scores, "redundant_query_rate", "repeated queries {:.1%}"),
        _told(scores, "format_rate", "right format {:.1%}"),
    )


def _gold(scores: Json) -> str:
    hops = ", ".join(f"hop {hop} {share:.1%}" for hop, share in scores.get("gold_recall_by_hop", {}).items())
    return _joined(
        _told(scores, "gold_recall", "gold documents found {:.1%}") + (f" ({hops})" if hops else ""),
        _told(scores, "gold_hit_rate", "any of a question's {:.1%}"),
        _told(scores, "first_hit_turn", "turn of the first gold document {:.2f}"),
    )


def _ends(scores: Json) -> str:
    ended = ", ".join(f"{reason} {count}" for reason, count in scores.get("stop_reasons", {}).items())
    return _joined(ended, _told(scores, "truncated", "truncated by a budget {:.1%}"), before="ended: ")


def _hops(scores: Json) -> str:
    groups = scores.get("by_hops", {}).items()
    return _joined(*(f"{hops} hops {each['f1']:.3f} (n {each['n']})" for hops, each in groups), before="F1: ")


def _cost(scores: Json) -> str:
    seconds = _told(scores, "seconds_per_question", "{:.2f} s")
    if not scores.get("calls_per_question"):  # Nobody asked a model, or nobody counted.
        paid = scores.get("search_cost_per_question")
        return _joined(seconds, "" if paid is None else f"searches paid {_money(paid)}", before="a question: ")
    searches, model, both = (scores.get(key) for key in COST[-3:])
    total = _money(both, "" if searches else " USD")  # Searches are in the currency of the retriever's settings.
    return _joined(
        f"{scores['calls_per_question']:.2f} calls",
        f"{_or_dash(scores.get('read_tokens_per_question'), '{:.0f}')} tokens read",
        f"{_or_dash(scores.get('written_tokens_per_question'), '{:.0f}')} written",
        seconds,
        f"paid {total} (searches {_money(searches)}, model {_money(model, ' USD')})",
        before="a question: ",
    )


def _told(scores: Json, key: str, layout: str) -> str:
    return "" if scores.get(key) is None else layout.format(scores[key])


def _or_dash(value: float | None, layout: str) -> str:
    return "-" if value is None else layout.format(value)


def _money(value: float | None, currency: str = "") -> str:
    """A price with four decimals, or with as many as show its first two digits; a dash if it is not known."""
    if value is None:
        return "-"
    decimals = max(4, 1 - math.floor(math.log10(abs(value)))) if value else 0
    return f"{value:.{decimals}f}{currency}"


def _joined(*parts: str, before: str = "") -> str:
    text = ", ".join(filter(None, parts))
    return text and before + text

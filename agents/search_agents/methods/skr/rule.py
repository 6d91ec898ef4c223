"""What retrieval did for a question, and when neighbours' experience speaks for it."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

__all__ = ["Label", "Totals", "Verdict", "label_of", "should_retrieve"]


class Label(StrEnum):
    """What retrieval did for the model's answer to a training question."""

    BETTER = "ir_better"
    """Right with documents only."""
    WORSE = "ir_worse"
    """Right without documents only."""
    SAME = "same"
    """Right both ways, or wrong both ways."""


class Totals(NamedTuple):
    """How many training questions have each label."""

    better: int
    worse: int
    same: int

    @classmethod
    def of(cls, labels: Iterable[str]) -> Totals:
        """Count labels."""
        given = list(labels)
        return cls(*(given.count(label) for label in (Label.BETTER, Label.WORSE, Label.SAME)))


class Verdict(NamedTuple):
    """Whether to retrieve for a question, and why."""

    retrieve: bool
    why: str


def label_of(without: float, with_: float) -> Label:
    """The label of a question from the exact match of the two answers.

    Args:
        without: Of the answer from what the model knows.
        with_: Of the answer from documents.
    """
    if with_ > without:
        return Label.BETTER
    return Label.WORSE if with_ < without else Label.SAME


def should_retrieve(better: int, worse: int, *, neighbours: int, totals: Totals) -> bool:
    """SKR's rule: what the whole training set leans to is done, unless the neighbours lean the other way enough.

    Enough is as much as the training set would lead one to expect among as many questions (section 3.3 of the paper;
    the authors' code truncates that number).

    Args:
        better: Neighbours that retrieval helped.
        worse: Neighbours that it harmed.
        neighbours: How many were asked for, k.
        totals: Of all training questions, those with the label same included.
    """
    lead = better - worse
    expected = (totals.better - totals.worse) * neighbours / sum(totals)
    if expected < 0:
        return not (lead < 0 and -lead >= int(-expected))
    return lead > 0 and lead >= int(expected)

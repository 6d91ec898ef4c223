"""Metrics of an answer against its gold answers: exact match, word F1, two kinds of cover match.

The same numbers as the papers': a metric is taken against every gold answer and the best
one counts. There are two normalisations in the field and they differ: R1-Searcher's puts a
blank where punctuation stood, FlashRAG's (and Search-R1's) deletes it, so ``U.S.`` is
``u s`` for one and ``us`` for the other. Scores of the two must not be mixed in one table.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import lru_cache

from search_env.errors import ConfigError, unknown_name

__all__ = [
    "Normalisation",
    "cover_bag",
    "cover_contiguous",
    "exact_match",
    "f1",
    "mentions",
    "normalise",
    "score",
    "title_key",
]


class Normalisation(StrEnum):
    """How texts are brought into a form that can be compared."""

    R1_SEARCHER = "r1-searcher"
    """A text that is exactly ``True`` or ``False`` is yes or no; underscores and punctuation become blanks."""
    FLASHRAG = "flashrag"
    """Punctuation is deleted: the official script of HotpotQA, and after it FlashRAG and Search-R1."""


_PUNCTUATION_TO_BLANK = str.maketrans(dict.fromkeys(string.punctuation + "‘’´`", " "))
_PUNCTUATION_DELETED = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_BOOLEANS = {"True": "yes", "False": "no"}
_VERDICTS = frozenset({"yes", "no", "noanswer"})


def normalise(text: str, normalisation: str = Normalisation.R1_SEARCHER) -> str:
    """Bring a text into the form that the metrics compare.

    Args:
        text: An answer.
        normalisation: ``r1-searcher`` or ``flashrag``.

    Returns:
        Lower case, without punctuation and articles, one blank between words.

    Raises:
        ConfigError: If there is no such normalisation.

    Example:
        >>> normalise("The U.S. Army"), normalise("The U.S. Army", "flashrag")
        ('u s army', 'us army')
    """
    if normalisation == Normalisation.R1_SEARCHER:
        text = _BOOLEANS.get(text, text).lower().translate(_PUNCTUATION_TO_BLANK)
    elif normalisation == Normalisation.FLASHRAG:
        text = text.lower().translate(_PUNCTUATION_DELETED)
    else:
        raise ConfigError(unknown_name("normalisation", normalisation, Normalisation))
    return " ".join(_ARTICLES.sub(" ", text).split())


def exact_match(answer: str, golds: Sequence[str], normalisation: str = Normalisation.R1_SEARCHER) -> float:
    """1.0 if the answer equals a gold answer after normalisation, else 0.0.

    Args:
        answer: The answer given.
        golds: Every accepted answer, at least one.
        normalisation: ``r1-searcher`` or ``flashrag``.
    """
    return _best(_exact_match, answer, golds, normalisation)


def f1(answer: str, golds: Sequence[str], normalisation: str = Normalisation.R1_SEARCHER) -> float:
    """Word F1 in [0, 1]: ``2 IN / (PN + RN)`` over the multisets of words (R1-Searcher, answer reward).

    IN is the number of common words, PN and RN the numbers of words of answer and gold. It is 0 if one side is
    yes, no or noanswer and the other is not the same.

    Args:
        answer: The answer given.
        golds: Every accepted answer, at least one.
        normalisation: ``r1-searcher`` or ``flashrag``.
    """
    return _best(_f1, answer, golds, normalisation)


def cover_bag(answer: str, golds: Sequence[str], normalisation: str = Normalisation.R1_SEARCHER) -> float:
    """1.0 if every word of a gold answer is among the answer's words, in any order, else 0.0.

    This is the ACC_R (CEM) of R1-Searcher's tables. How often a word occurs does not matter.

    Args:
        answer: The answer given.
        golds: Every accepted answer, at least one.
        normalisation: ``r1-searcher`` or ``flashrag``.
    """
    return _best(_cover_bag, answer, golds, normalisation)


def cover_contiguous(answer: str, golds: Sequence[str], normalisation: str = Normalisation.R1_SEARCHER) -> float:
    """1.0 if a gold answer is a piece of the answer, else 0.0: FlashRAG's accuracy.

    The piece need not end at a word's end, as in the original: gold ``no`` is covered by ``know``.

    Args:
        answer: The answer given.
        golds: Every accepted answer, at least one.
        normalisation: ``r1-searcher`` or ``flashrag``.
    """
    return _best(_cover_contiguous, answer, golds, normalisation)


def mentions(text: str, answer: str, normalisation: str = Normalisation.R1_SEARCHER) -> bool:
    """Whether an answer stands in a text as whole words, after normalisation.

    Example:
        >>> mentions("He knew Oslo well.", "Oslo"), mentions("He knew it.", "new")
        (True, False)
    """
    wanted = normalise(answer, normalisation)
    return bool(wanted) and f" {wanted} " in f" {normalise(text, normalisation)} "


def title_key(title: str) -> str:
    """What two spellings of a document's title share: upper and lower case and the number of blanks do not count."""
    return " ".join(title.casefold().split())


def score(answer: str | None, golds: Sequence[str], normalisation: str = Normalisation.R1_SEARCHER) -> dict[str, float]:
    """All metrics of one answer.

    Args:
        answer: The answer given; None if the episode ended without one, which scores 0 everywhere.
        golds: Every accepted answer, at least one.
        normalisation: ``r1-searcher`` or ``flashrag``.

    Returns:
        ``em``, ``f1``, ``cem`` (the bag) and ``cem_contiguous``, each in [0, 1].
    """
    if answer is None:
        return dict.fromkeys(_METRICS, 0.0)
    given = _normalised(answer, normalisation)
    wanted = [_normalised(gold, normalisation) for gold in golds]
    if given and given in wanted:
        return dict.fromkeys(_METRICS, 1.0)
    return {name: max(metric(given, gold) for gold in wanted) for name, metric in _METRICS.items()}


# An episode's answer is judged by several metrics, and its gold answers again in every episode.
_normalised = lru_cache(maxsize=4096)(normalise)

# A metric of two normalised texts: answer, then gold.
_Metric = Callable[[str, str], float]


def _best(metric: _Metric, answer: str, golds: Sequence[str], normalisation: str) -> float:
    given = _normalised(answer, normalisation)
    return max([metric(given, _normalised(gold, normalisation)) for gold in golds])


def _exact_match(answer: str, gold: str) -> float:
    return float(answer == gold)


def _f1(answer: str, gold: str) -> float:
    if answer == gold:
        return float(bool(gold))
    if answer in _VERDICTS or gold in _VERDICTS:
        return 0.0
    given, wanted = answer.split(), gold.split()
    common = sum((Counter(given) & Counter(wanted)).values())
    return 2 * common / (len(given) + len(wanted)) if common else 0.0


def _cover_bag(answer: str, gold: str) -> float:
    # A gold answer of articles and punctuation only has no words, and is covered by the like only.
    return float(set(gold.split()) <= set(answer.split())) if gold else _exact_match(answer, gold)


def _cover_contiguous(answer: str, gold: str) -> float:
    return float(gold in answer) if gold else _exact_match(answer, gold)


_METRICS: dict[str, _Metric] = {"em": _exact_match, "f1": _f1, "cem": _cover_bag, "cem_contiguous": _cover_contiguous}

"""What a method must beat: answers given without reading, and one search with the question as it stands.

Both answer floors draw from the gold answers of the evaluated questions themselves,
kind by kind. That is more than a method could know, so beating them means reading.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from search_agents.evaluation.scorer import score
from search_env.retrieval.base import Retriever
from search_env.types import Action, ActionKind, Question, StopReason, Transcript, Turn

__all__ = ["answer_floors", "question_as_query"]


def answer_floors(questions: Sequence[Question], *, seed: int) -> dict[str, dict[str, Any]]:
    """Score answers that need no document.

    Args:
        questions: The evaluated questions.
        seed: Of the random draws.

    Returns:
        The scores of ``random_answer`` (the gold answer of another question of the same kind, drawn uniformly)
        and ``majority_answer`` (the most frequent gold answer of the kind).
    """
    rng = np.random.default_rng(seed)
    pools = _answers_by_kind(questions)
    majority = {kind: Counter(answers).most_common(1)[0][0] for kind, answers in pools.items()}
    guesses = {
        "random_answer": [_other_answer(question, pools, rng) for question in questions],
        "majority_answer": [majority[question.kind] for question in questions],
    }
    return {
        name: _answer_scores([_answered(*pair) for pair in zip(questions, answers, strict=True)])
        for name, answers in guesses.items()
    }


def question_as_query(questions: Sequence[Question], retriever: Retriever, *, top_k: int) -> dict[str, Any]:
    """How often one search with the question's own words finds every gold passage.

    Args:
        questions: The evaluated questions; those without gold titles are left out.
        retriever: The retriever of the environment.
        top_k: Documents of the search.

    Returns:
        ``all_gold_rate`` over all questions, over the multi-hop ones and by number of hops (None where there are
        no such questions), with ``top_k`` and ``n``.

    Raises:
        RetrieverUnavailable: If the retriever failed for good.
    """
    asked = [question for question in questions if question.gold_titles]
    queries = [question.text for question in asked]
    # In batches, as environments search: a server need not answer a thousand queries within one deadline.
    results = [hits for at in range(0, len(queries), 64) for hits in retriever.search(queries[at : at + 64], top_k)]
    found: Mapping[int, list[bool]] = defaultdict(list)
    for question, hits in zip(asked, results, strict=True):
        titles = {hit.document.title for hit in hits}
        found[_hops(question)].append(titles.issuperset(question.gold_titles))
    return {
        "top_k": top_k,
        "n": len(asked),
        "all_gold_rate": _rate([hit for rates in found.values() for hit in rates]),
        "all_gold_rate_multi_hop": _rate([hit for hops, rates in found.items() if hops > 1 for hit in rates]),
        "by_hops": {str(hops): _rate(found[hops]) for hops in sorted(found)},
    }


def _answers_by_kind(questions: Sequence[Question]) -> dict[str, list[str]]:
    pools: dict[str, list[str]] = defaultdict(list)
    for question in questions:
        pools[question.kind].append(question.answers[0])
    return pools


def _other_answer(question: Question, pools: Mapping[str, Sequence[str]], rng: np.random.Generator) -> str:
    """The answer of another question of the kind; of any question if it is the only one of its kind."""
    pool = list(pools[question.kind])
    if len(pool) == 1:
        pool = [answer for answers in pools.values() for answer in answers]
    # One copy of the question's own answer stands for the question itself.
    if len(pool) > 1:
        pool.remove(question.answers[0])
    return pool[int(rng.integers(len(pool)))]


def _answered(question: Question, answer: str) -> Transcript:
    turn = Turn(segment=answer, action=Action(kind=ActionKind.ANSWER, text=answer))
    return Transcript(question=question, turns=(turn,), stop_reason=StopReason.ANSWERED)


def _answer_scores(transcripts: Sequence[Transcript]) -> dict[str, Any]:
    """The scores without those of searching and format, which a guess does not have."""
    scores = score(transcripts).to_dict()
    return {name: scores[name] for name in ("n", "f1", "em", "cem", "cem_contiguous", "by_kind", "by_hops")}


def _hops(question: Question) -> int:
    return question.hops if question.hops is not None else len(question.gold_titles)


def _rate(values: Sequence[bool]) -> float | None:
    return sum(values) / len(values) if values else None

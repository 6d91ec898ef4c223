"""What a question set is like over its corpus: sizes, hops, and how far single searches and followed hops get."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from search_agents.evaluation.floors import question_as_query
from search_agents.evaluation.report import table
from search_agents.evaluation.scorer import score
from search_agents.methods import Method
from search_agents.methods.floor_and_ceiling import Oracle, RandomAgent
from search_env.metrics import mentions
from search_env.types import Hit, Question, Transcript
from search_env.vector import SearchQAVectorEnv

__all__ = ["set_statistics", "statistics_table"]


def set_statistics(env: SearchQAVectorEnv) -> dict[str, Any]:
    """Measure a question set.

    Args:
        env: Its environment: gives dataset, retriever and number of documents.

    Returns:
        Sizes, kinds, hops and fingerprints; ``answer_in_top_k``: the share of questions whose answer stands in a
        document of the search with the question as query, and of the searches of the oracle (questions answered by
        yes or no are left out); ``all_gold``: see `question_as_query`; ``oracle`` and ``random``: their EM and F1.

    Raises:
        RetrieverUnavailable: If the retriever failed for good.
    """
    dataset, questions = env.dataset, env.dataset.questions
    oracle, random = _played(Oracle(env), questions), _played(RandomAgent(env), questions)
    named = [question for question in questions if not {"yes", "no"} & {answer.lower() for answer in question.answers}]
    by_question = _search([question.text for question in named], env)
    by_oracle = [[hit for turn in oracle[question.id].turns for hit in turn.hits] for question in named]
    return {
        "name": dataset.name,
        "split": dataset.split,
        "questions": len(questions),
        "passages": len(dataset.documents),
        "kinds": dict(Counter(question.kind or "-" for question in questions).most_common()),
        "hops": dict(sorted(Counter(question.hops or 0 for question in questions).items())),
        "decomposed": sum(bool(question.decomposition) for question in questions),
        "top_k": env.top_k,
        "answer_in_top_k": {
            "questions": len(named),
            "question_as_query": _share(named, by_question),
            "oracle_queries": _share(named, by_oracle),
        },
        "all_gold": question_as_query(questions, env.retriever, top_k=env.top_k)["all_gold_rate"],
        "oracle": _scores(score(list(oracle.values())).to_dict()),
        "random": _scores(score(list(random.values())).to_dict()),
        "dataset_fingerprint": dataset.fingerprint,
        "corpus_fingerprint": dataset.corpus_fingerprint,
        "retriever_fingerprint": env.retriever.fingerprint,
    }


def _played(method: Method, questions: Sequence[Question]) -> dict[str, Transcript]:
    """What a method did on questions, by their ids and in their order."""
    found = {transcript.question.id: transcript for transcript in method.run(questions)}
    return {question.id: found[question.id] for question in questions}


def statistics_table(found: Sequence[dict[str, Any]]) -> str:
    """Several sets side by side, as a Markdown table."""
    top = found[0]["top_k"]
    header = [
        "set", "questions", "passages", "hops",
        f"answer in top {top}, question", f"answer in top {top}, oracle queries",
        f"all gold in top {top}", "oracle EM", "random EM",
    ]  # fmt: skip
    rows = [
        [
            f"{one['name']} {one['split']}",
            f"{one['questions']:,}",
            f"{one['passages']:,}",
            " ".join(f"{hops or '?'}:{count}" for hops, count in one["hops"].items()),
            *(
                "-" if share is None else f"{share:.1%}"
                for share in (
                    one["answer_in_top_k"]["question_as_query"],
                    one["answer_in_top_k"]["oracle_queries"],
                    one["all_gold"],
                    one["oracle"]["em"],
                    one["random"]["em"],
                )
            ),
        ]
        for one in found
    ]
    return table(header, rows)


def _search(queries: Sequence[str], env: SearchQAVectorEnv) -> list[tuple[Hit, ...]]:
    # In batches, as environments search: a server need not answer a thousand queries within one deadline.
    starts = range(0, len(queries), env.num_envs)
    return [hits for at in starts for hits in env.retriever.search(queries[at : at + env.num_envs], env.top_k)]


def _share(questions: Sequence[Question], hits: Sequence[Sequence[Hit]]) -> float | None:
    """Share of the questions one of whose answers stands in their documents."""
    found = [
        any(
            mentions(f"{hit.document.title} {hit.document.text}", answer) for hit in read for answer in question.answers
        )
        for question, read in zip(questions, hits, strict=True)
    ]
    return sum(found) / len(found) if found else None


def _scores(scores: dict[str, Any]) -> dict[str, float]:
    return {name: scores[name] for name in ("em", "f1", "searches_per_question")}

"""Are the questions of stored episodes those of the set that they name, with its gold answers?

Episodes carry their own gold answers. Whoever rewrites those to what the agent said has a
perfect row that agrees with its episodes, so the answers are held to the set itself
wherever that can be loaded: an embedded one always, others where somebody has their data.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from search_agents.leaderboard.row import Benchmark, Row
from search_env.datasets import PUBLISHED, load
from search_env.datasets.base import Dataset
from search_env.errors import DatasetError, SearchEnvError
from search_env.plugins import DATASETS as PLUGINS
from search_env.plugins import plugins
from search_env.registration import ENVIRONMENTS
from search_env.types import Question, Transcript

__all__ = ["disagreeing", "is_here", "problem_of_questions", "require_data"]

_SHOWN = 3


def problem_of_questions(
    benchmark: Benchmark, transcripts: Sequence[Transcript], data: Sequence[str] = ()
) -> str | None:
    """Compare ids, texts and gold answers with the set.

    Args:
        benchmark: Names the set.
        transcripts: Episodes on its questions.
        data: Where data of sets lies, each as of ``search-env eval --data``. What a row says of that is not followed.

    Returns:
        What is wrong, empty if nothing is; None if the set is not here, so that nobody can tell.
    """
    asked = {transcript.question.id: transcript.question for transcript in transcripts}
    for place, dataset in _sets(benchmark, data):
        same = dataset.fingerprint == benchmark.dataset_hash
        found = {question.id: question for question in dataset.questions}
        if told := [each for id_, question in asked.items() if (each := _differs(question, found.get(id_), same))]:
            some = "; ".join(told[:_SHOWN]) + ("; …" if len(told) > _SHOWN else "")
            return f"{len(told)} of {len(asked)} questions are not those of the set: {some}"
        if same or all(id_ in found and found[id_].text == question.text for id_, question in asked.items()):
            return ""
        if place is None and benchmark.data is None:
            return f"dataset_hash is {benchmark.dataset_hash} in the row and {dataset.fingerprint} in the set"
    return None


def disagreeing(rows: Mapping[str, Row]) -> Iterator[str]:
    """Name benchmarks whose rows agree in everything but the questions: one of them may have other gold answers."""
    groups: dict[tuple[str, str, int, str], dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name, row in rows.items():
        each = row.benchmark
        key = (each.environment, each.split, each.questions, each.dataset_hash)
        groups[key][each.questions_hash].append(name)
    for (environment, split, questions, hash_), found in groups.items():
        if len(found) > 1:
            told = "; ".join(f"{own}: {', '.join(names)}" for own, names in found.items())
            yield (
                f"{environment}, {split}, {questions} questions, dataset {hash_}: the rows hold different questions or "
                f"gold answers ({told})."
            )


def is_here(data: str) -> bool:
    """Whether data can be read without the hub, whose ids hold a slash; settings of an embedded set hold none."""
    return "/" not in data or Path(data).expanduser().exists()


def require_data(data: Sequence[str]) -> None:
    """Refuse data that lies nowhere: a mistyped folder would compare nothing.

    Args:
        data: Each a file, a folder, a hub id of a published set or settings of an embedded one; sets of installed
            packages read what they like.

    Raises:
        DatasetError: Names what is none of these.
    """
    hub = [published.hub.id for published in PUBLISHED]
    for each in data:
        known = Path(each).expanduser().exists() or "=" in each.rpartition("/")[2] or each.partition("@")[0] in hub
        if not known and not plugins(PLUGINS):
            raise DatasetError(
                f"there is no file or folder {each!r}. Give the data of a set as `search-env eval --data` takes it: "
                f"--data FOLDER, or one of the hub, {', '.join(hub)}."
            )


def _sets(benchmark: Benchmark, data: Sequence[str]) -> list[tuple[str | None, Dataset]]:
    """The sets that may be meant, each with where it lies (None: embedded); the very one first."""
    found: list[tuple[str | None, Dataset]] = []
    for place in (None, *data):
        try:
            found.append((place, load(ENVIRONMENTS[benchmark.environment], split=benchmark.split, data=place)))
        except (KeyError, SearchEnvError):
            continue
    return sorted(found, key=lambda each: each[1].fingerprint != benchmark.dataset_hash)


def _differs(asked: Question, own: Question | None, same: bool) -> str:
    """How a question differs from the set's own; empty if it does not, or if it is of another set."""
    if own is None or own.text != asked.text:
        return f"{asked.id!r} is {'not in it' if own is None else 'another question there'}" if same else ""
    if own.answers == asked.answers:
        return ""
    return f"{asked.id!r} has the gold answers {list(own.answers)} there and {list(asked.answers)} in the episodes"

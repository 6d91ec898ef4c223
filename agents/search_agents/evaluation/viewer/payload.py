"""What the viewer shows, as plain values: outcomes, marks of gold documents, tokens with their mask and log-probs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from search_agents.evaluation.saved import FORMATS
from search_agents.evaluation.searches import found_hops, repeated_queries
from search_agents.evaluation.viewer.sources import Played, read_played
from search_agents.evaluation.viewer.tokens import Pieces, find_pieces
from search_agents.learning.episode_metrics import TRUNCATED
from search_env import metrics
from search_env.datasets.rows import SkippedRows
from search_env.errors import ConfigError, DatasetError
from search_env.types import Call, Document, Turn

__all__ = ["Outcome", "Payload", "make_payload", "outcome_of"]

T = TypeVar("T")

Payload = dict[str, Any]
"""Values that JSON can hold."""

_Key = tuple[tuple[str, str], str]
"""What tells an episode from the others of its run: its question and its origin."""
_MOST_CHARACTERS = 50_000
"""Of a text of a call or an observation: one prompt of a method may hold a whole book."""


class Outcome(StrEnum):
    """How an episode ended, as the viewer tells them apart."""

    RIGHT = "right"
    """Every word of a gold answer is in the answer (ACC_R)."""
    WRONG = "wrong"
    NO_ANSWER = "no answer"
    TRUNCATED = "truncated"
    """A budget was spent before an answer came."""
    INVALID = "invalid"
    """The retriever failed: neither right nor wrong."""


def make_payload(
    runs: Sequence[Path],
    *,
    limit: int,
    format_: str = "ours",
    model: str | None = None,
    skip_malformed: int = 0,
) -> Payload:
    """Read one run, or two on the same questions.

    Args:
        runs: One or two; see `search_agents.evaluation.viewer.sources.read_played`.
        limit: Most episodes of each run; of more, some are taken evenly over the whole run. Of two runs, pairs of one
            question and origin come first, then other pairs of one question, then what one run alone has.
        format_: Who saved the episodes.
        model: Whose tokenizer cuts the tokens; None takes that of the training run, if it is one.
        skip_malformed: Most malformed rows of each run that are left out.

    Returns:
        ``runs`` (name, path, number of episodes there are, episodes), and the ``documents`` of all of them.

    Raises:
        ConfigError: If two runs have no question in common, or there is no such format.
        DatasetError: If a file cannot be read, a row is malformed, or there is no episode.
        ModelError: If `model` has no tokenizer that can be read.
        RunError: If a folder holds no episodes, or the ``meta.json`` of its training run is damaged.
    """

    def played(run: Path) -> Iterable[Played]:
        return read_played(run, format_, SkippedRows(skip_malformed))

    keys = [[(episode.key, episode.origin) for episode in played(run)] for run in runs]
    for run, found in zip(runs, keys, strict=True):
        if not found:
            raise DatasetError(f"{run}: holds no episodes")
    chosen = _choose(runs, keys, limit)
    documents = _Documents()
    normalisation = FORMATS[format_].normalisation
    made = []
    for run, name, found, wanted in zip(runs, _names(runs), keys, chosen, strict=True):
        # Read a second time: a long run is larger than the memory, what is shown of it is not.
        episodes = [episode for number, episode in enumerate(played(run)) if number in wanted]
        pieces = find_pieces(run, episodes, model)
        shown = [_episode(episode, documents.number, pieces, normalisation) for episode in episodes]
        made.append({"name": name, "path": str(run), "total": len(found), "episodes": shown})
    return {"runs": made, "documents": documents.listed}


def outcome_of(played: Played, scores: Mapping[str, float]) -> Outcome:
    """Tell how an episode ended.

    Args:
        played: The episode.
        scores: Its answer's `search_env.metrics.score`.
    """
    if not played.valid:
        return Outcome.INVALID
    if played.transcript.stop_reason in TRUNCATED:
        return Outcome.TRUNCATED
    if played.transcript.answer is None:
        return Outcome.NO_ANSWER
    return Outcome.RIGHT if scores["cem"] else Outcome.WRONG


class _Documents:
    """Every document once, however often it was found."""

    def __init__(self) -> None:
        self.listed: list[dict[str, str]] = []
        self._numbers: dict[Document, int] = {}

    def number(self, document: Document) -> int:
        """Its place in the list."""
        if document not in self._numbers:
            self._numbers[document] = len(self.listed)
            self.listed.append({"id": document.id, "title": document.title, "text": _cut(document.text)})
        return self._numbers[document]


def _choose(runs: Sequence[Path], keys: Sequence[Sequence[_Key]], limit: int) -> list[frozenset[int]]:
    """The numbers of the episodes that are shown of each run: of two runs, those of shared questions, in pairs."""
    if len(runs) == 1:
        return [frozenset(_spread(range(len(keys[0])), limit))]
    shared = {question for question, _ in keys[0]} & {question for question, _ in keys[1]}
    if not shared:
        raise ConfigError(
            f"{runs[0]} and {runs[1]} have no question in common, so nothing can be shown side by side. "
            "View each alone, or evaluate both on the same questions."
        )
    left = [{number: key for number, key in enumerate(each) if key[0] in shared} for each in keys]
    chosen: list[tuple[int, int]] = []
    for parts in (2, 1):  # the same question and origin, then the same question
        pairs = _pairs(*({number: key[:parts] for number, key in each.items()} for each in left))
        chosen += _spread(pairs, limit - len(chosen))
        for each, paired in zip(left, zip(*pairs, strict=True), strict=False):
            for number in paired:
                del each[number]
    sides = zip(*chosen, strict=True)
    return [
        frozenset([*side, *_spread(list(alone), limit - len(side))]) for side, alone in zip(sides, left, strict=True)
    ]


def _pairs(first: Mapping[int, Hashable], second: Mapping[int, Hashable]) -> list[tuple[int, int]]:
    """Numbers whose values are the same, each number in one pair at most."""
    partners = defaultdict[Hashable, list[int]](list)
    for number, value in reversed(list(second.items())):
        partners[value].append(number)
    return [(number, partners[value].pop()) for number, value in first.items() if partners[value]]


def _spread(values: Sequence[T], limit: int) -> Sequence[T]:
    if len(values) <= limit:
        return values
    return [values[place * len(values) // limit] for place in range(limit)]


def _names(runs: Sequence[Path]) -> list[str]:
    """The last part of each path; where they are the same, the whole path."""
    names = [run.resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [str(run) for run in runs]


def _episode(
    played: Played, number: Callable[[Document], int], pieces: Pieces | None, normalisation: str
) -> dict[str, Any]:
    transcript, question = played.transcript, played.transcript.question
    scores = metrics.score(transcript.answer, question.answers, normalisation)
    golds = frozenset(map(metrics.title_key, question.gold_titles))
    return {
        "origin": played.origin,
        "outcome": outcome_of(played, scores),
        "question": {
            "id": question.id,
            "text": question.text,
            "answers": list(question.answers),
            "about": ", ".join(
                filter(None, (question.kind, question.level, f"{question.hops} hops" if question.hops else ""))
            ),
            "golds": [
                {"title": title, "found": found}
                for title, found in zip(question.gold_titles, found_hops(transcript), strict=True)
            ],
        },
        "answer": transcript.answer,
        "stop_reason": transcript.stop_reason,
        "problems": list(transcript.format.problems),
        "metrics": scores if played.valid else None,
        "searches": len(transcript.queries),
        "repeated": repeated_queries(transcript),
        "reward": _finite(played.reward) if played.valid else None,
        "reward_parts": {name: _finite(part) for name, part in played.reward_parts.items()} if played.valid else {},
        "turns": [_turn(turn, golds, number) for turn in transcript.turns],
        "segments": [_segment(segment, pieces) for segment in played.segments],
        "trained": None if played.trained is None else sorted(played.trained),
    }


def _turn(turn: Turn, golds: frozenset[str], number: Callable[[Document], int]) -> dict[str, Any]:
    return {
        "segment": turn.segment,
        "kind": turn.action.kind,
        "text": turn.action.text,
        "problem": turn.action.problem,
        "hits": [
            {
                "document": number(hit.document),
                "score": _finite(hit.score),
                "gold": metrics.title_key(hit.document.title) in golds,
            }
            for hit in turn.hits
        ],
        "observation": _cut(turn.observation),
        "calls": [_call(call) for call in turn.calls],
    }


def _call(call: Call) -> dict[str, Any]:
    return {
        "purpose": call.purpose,
        "prompt": _cut(call.prompt),
        "text": _cut(call.text),
        "prompt_tokens": call.prompt_tokens,
        "tokens": call.tokens,
    }


def _segment(segment: Mapping[str, Any], pieces: Pieces | None) -> dict[str, Any]:
    """Tokens that entered the context together; without a tokenizer they have no pieces."""
    ids = segment.get("token_ids", ())
    return {
        "kind": segment["kind"],
        "text": segment["text"],
        "count": len(ids),
        "pieces": list(pieces(ids)) if pieces is not None and ids else [],
        "logprobs": [_finite(logprob) for logprob in segment.get("logprobs", ())],
    }


def _finite(value: float | None) -> float | None:
    """A number that JSON knows; None for the others."""
    return round(value, 4) if value is not None and math.isfinite(value) else None


def _cut(text: str) -> str:
    left = len(text) - _MOST_CHARACTERS
    return text if left <= 0 else f"{text[:_MOST_CHARACTERS]}\n… {left:,} more characters"

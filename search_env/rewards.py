"""Rewards: sums of named, weighted parts, judged on what the model wrote.

No part reads a document, so no document can earn or cost anything: answer, queries,
segments and the dialect's format verdict are all that counts. The one exception is
`gold_recall`, which compares the *titles* of what was retrieved with the question's gold
titles. Every reward judges a finished episode; one that ended without an answer simply
has an answer reward of 0 and a wrong format.

Presets (`REWARDS`) are the paper's rewards and the authors' code variants; a mapping of
part names (`PARTS`) to weights makes any other. A package of yours adds one through the
entry point group ``search_env.rewards``: a `PartFunction`, which is a part, and a preset
of that part alone; or a `Reward`, which is a preset.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from search_env import metrics, rewards_as_coded
from search_env.errors import ConfigError, PluginError, unknown_name
from search_env.plugins import REWARDS as PLUGINS
from search_env.plugins import load_plugin, plugins
from search_env.types import Transcript

__all__ = ["PARTS", "REWARDS", "PartFunction", "Reward", "RewardPart", "RewardResult", "get_reward"]

PartFunction = Callable[[Transcript], float]
"""Judges a finished episode."""


class RewardPart(NamedTuple):
    """One term of the sum."""

    name: str
    """Its name in the episode's ``reward_parts``."""
    weight: float
    function: PartFunction


@dataclass(frozen=True, slots=True, kw_only=True)
class RewardResult:
    """What an episode earned."""

    parts: dict[str, float]
    """Each part's weighted value; together they are the total."""

    @property
    def total(self) -> float:
        """The reward."""
        return float(sum(self.parts.values()))


@dataclass(frozen=True, slots=True)
class Reward:
    """A sum of weighted parts.

    Raises:
        ConfigError: If there is no part or two have the same name.

    Example:
        >>> get_reward({"f1": 1.0, "search_cost": 0.1}).parts[0].name
        'f1'
    """

    parts: tuple[RewardPart, ...]

    def __post_init__(self) -> None:
        names = [part.name for part in self.parts]
        if not names or len(set(names)) < len(names):
            raise ConfigError(f"a reward needs at least one part, and names that differ; given: {names}.")

    def __call__(self, transcript: Transcript) -> RewardResult:
        """Judge a finished episode.

        Args:
            transcript: The episode with the dialect's final format verdict.

        Returns:
            The weighted value of every part, floats only.
        """
        return RewardResult(parts={part.name: float(part.weight * part.function(transcript)) for part in self.parts})


def get_reward(spec: str | Mapping[str, float] | Reward) -> Reward:
    """Find or make a reward.

    Args:
        spec: The name of a preset, a mapping of part names to weights, or a reward.

    Returns:
        The reward.

    Raises:
        ConfigError: If a name is unknown or a weight is no finite number.
        PluginError: If a name is of another package, and that is broken.
    """
    if isinstance(spec, Reward):
        return spec
    if isinstance(spec, str):
        if spec in REWARDS:
            return REWARDS[spec]
        if spec not in plugins(PLUGINS):
            raise ConfigError(unknown_name("reward", spec, [*REWARDS, *plugins(PLUGINS)]))
        found = load_plugin(PLUGINS, spec)
        return found if isinstance(found, Reward) else Reward((_weighted(spec, 1.0),))
    if not isinstance(spec, Mapping):
        raise ConfigError(f"a reward is the name of a preset or a mapping of parts to weights, not {spec!r}.")
    return Reward(tuple(_weighted(name, weight) for name, weight in spec.items()))


def _weighted(name: str, weight: float) -> RewardPart:
    if name not in PARTS and name not in plugins(PLUGINS):
        raise ConfigError(unknown_name("reward part", name, [*PARTS, *plugins(PLUGINS)]))
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
        raise ConfigError(f"the weight of reward part {name!r} is {weight!r}; write a finite number such as 0.5.")
    return RewardPart(name, float(weight), PARTS[name] if name in PARTS else _plugin_part(name))


def _plugin_part(name: str) -> PartFunction:
    found = load_plugin(PLUGINS, name)
    if not callable(found) or isinstance(found, Reward):
        raise PluginError(
            f"the plug-in {name!r} is no reward part: it is a {type(found).__name__}. A part is a function of a "
            "transcript that returns a number."
        )
    return found  # type: ignore[no-any-return]


def retrieval(transcript: Transcript) -> float:
    """1 if at least one search was run, else 0."""
    return float(bool(transcript.queries))


def format_correct(transcript: Transcript) -> float:
    """1 if every format rule of the dialect holds, else 0."""
    return float(transcript.format.ok)


def format_penalty(transcript: Transcript) -> float:
    """-1 if a format rule of the dialect is broken, else 0."""
    return 0.0 if transcript.format.ok else -1.0


def f1(transcript: Transcript) -> float:
    """Word F1 of the answer, 0 without one."""
    return _answer_metric(metrics.f1, transcript)


def exact_match(transcript: Transcript) -> float:
    """1 if the answer is a gold answer, else 0."""
    return _answer_metric(metrics.exact_match, transcript)


def cover_match(transcript: Transcript) -> float:
    """1 if the answer holds every word of a gold answer (CEM), else 0."""
    return _answer_metric(metrics.cover_bag, transcript)


def _answer_metric(metric: Callable[[str, tuple[str, ...]], float], transcript: Transcript) -> float:
    answer = transcript.answer
    return 0.0 if answer is None else metric(answer, transcript.question.answers)


def gold_recall(transcript: Transcript) -> float:
    """Share of the question's gold documents, known by their titles, that some search returned; 0 if none is known."""
    wanted = {metrics.title_key(title) for title in transcript.question.gold_titles}
    if not wanted:
        return 0.0
    found = {metrics.title_key(hit.document.title) for turn in transcript.turns for hit in turn.hits}
    return len(wanted & found) / len(wanted)


def query_diversity(transcript: Transcript) -> float:
    """Mean novelty of the queries in [0, 1], 0 without one.

    The novelty of a query is 1 less its greatest Jaccard overlap, in words, with an earlier query of the episode:
    1 for the first query, 0 for a repeated one.
    """
    words = [frozenset(metrics.normalise(query).split()) for query in transcript.queries]
    novelty = [
        1.0 - max((_jaccard(query, earlier) for earlier in words[:index]), default=0.0)
        for index, query in enumerate(words)
    ]
    return sum(novelty) / len(novelty) if novelty else 0.0


def search_cost(transcript: Transcript) -> float:
    """-1 for each search that was run."""
    return 0.0 - len(transcript.queries)


def _jaccard(left: frozenset[str], right: frozenset[str]) -> float:
    return len(left & right) / len(left | right) if left or right else 1.0


PARTS: dict[str, PartFunction] = {
    "retrieval": retrieval,
    "format": format_correct,
    "format_penalty": format_penalty,
    "f1": f1,
    "em": exact_match,
    "cem": cover_match,
    "gold_recall": gold_recall,
    "query_diversity": query_diversity,
    "search_cost": search_cost,
}
"""Every part that a mapping can weigh. Penalties and costs are negative themselves: give them positive weights."""

_FORMAT_PENALTY = RewardPart("format", 2.0, format_penalty)

REWARDS: dict[str, Reward] = {
    "stage1": Reward((RewardPart("retrieval", 0.5, retrieval), RewardPart("format", 0.5, format_correct))),
    "stage2": Reward((RewardPart("f1", 1.0, f1), _FORMAT_PENALTY)),
    "stage2-em": Reward((RewardPart("em", 1.0, exact_match), _FORMAT_PENALTY)),
    "stage2-cem": Reward((RewardPart("cem", 1.0, cover_match), _FORMAT_PENALTY)),
    "code-qwen-zero": Reward((RewardPart("f1", 1.0, f1), RewardPart("format", 2.0, rewards_as_coded.qwen_penalty))),
    "code-llama-stage1": Reward(
        (
            RewardPart("cem", 1.0, rewards_as_coded.llama_answer),
            RewardPart("retrieval", 0.5, rewards_as_coded.llama_retrieval),
            RewardPart("format", 0.5, rewards_as_coded.llama_format),
        )
    ),
    "code-llama-stage2": Reward((RewardPart("f1", 1.0, f1), RewardPart("format", 1.0, rewards_as_coded.llama_penalty))),
}
"""The presets.

``stage1`` is the paper's 0.5 for searching and 0.5 for a correct format, whatever the answer. ``stage2`` is its
F1 with -2 for a wrong format, ``stage2-em`` and ``stage2-cem`` its ablations of the answer reward. ``code-qwen-zero``
(F1, penalty 2), ``code-llama-stage1`` (1 or -1 for the answer, 0.5 for searching, 0.5 for the format) and
``code-llama-stage2`` (F1, penalty 1) are what the authors' code computes.
"""

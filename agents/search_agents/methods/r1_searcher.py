"""The trained policy: the model searches as it thinks, for as long as it wants to.

With its first query forced, an untrained model shows how much of the trained one's
gain is the mere habit of searching.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Sequence

from search_agents.engines.base import Capability
from search_agents.methods.base import Setting, batches, begin_query, require_sessions
from search_agents.rollout.collect import Task, collect, derive_seed
from search_agents.rollout.episode import Episode, SegmentKind
from search_env.types import Call, Question, Transcript

__all__ = ["ForcedQuery", "R1Searcher"]


class R1Searcher:
    """The model in the environment.

    Args:
        setting: What the comparison holds fixed.
    """

    name = "r1-searcher"
    needs = frozenset({Capability.GENERATE})

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._prefill = self._beginning()

    def run(self, questions: Sequence[Question], *, skip: Collection[int] = ()) -> Iterator[Transcript]:
        """Answer questions; see `Method.run`."""
        setting = self._setting
        engine = require_sessions(setting.engine, f"the method {self.name!r}")
        for numbers, batch in batches(questions, setting.env.num_envs, skip):
            episodes = collect(
                engine,
                setting.env,
                [
                    Task(question.id, number, derive_seed(setting.seed, number))
                    for number, question in zip(numbers, batch, strict=True)
                ],
                sampling=setting.sampling,
                max_tokens=setting.max_tokens,
                chat=setting.chat,
                prefill=self._prefill,
            )
            yield from map(_with_calls, episodes)

    def _beginning(self) -> str:
        """Text that every response is made to begin with."""
        return ""


class ForcedQuery(R1Searcher):
    """The model in the environment, every response made to begin with the opening query tag."""

    name = "r1-searcher-forced-query"

    def _beginning(self) -> str:
        rules = self._setting.env.rules
        return begin_query(rules.dialect, rules.dialect.prompt("", rules.style).prefill)


def _with_calls(episode: Episode) -> Transcript:
    """The transcript with the tokens that each turn took; what was read and written is the transcript itself."""
    calls, read = [], 0
    for segment in episode.segments:
        if segment.kind is SegmentKind.SAMPLED:
            calls.append(Call(purpose="segment", prompt_tokens=read, tokens=len(segment.token_ids)))
        read = 0 if segment.kind is SegmentKind.SAMPLED else read + len(segment.token_ids)
    turns = [
        dataclasses.replace(turn, calls=(call,))
        for turn, call in zip(episode.transcript.turns, calls, strict=False)  # a turn that failed is not there
    ]
    return dataclasses.replace(episode.transcript, turns=tuple(turns))

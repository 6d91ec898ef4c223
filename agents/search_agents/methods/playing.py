"""Plays episodes through their text alone: for agents that need no tokens of a model.

Queries are run, budgets counted and answers judged by the environment's own rules, as
for a trained policy.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from search_agents.methods.base import batches
from search_agents.rollout.found import search_for
from search_env.episode import EpisodeState, Rules
from search_env.types import Question, StopReason, Transcript
from search_env.vector import SearchQAVectorEnv

__all__ = ["PlayingMethod"]


class PlayingMethod(ABC):
    """A method that says one segment at a time in the dialect of the environment.

    Args:
        env: The environment; its slots are the batch size.
    """

    name: str

    def __init__(self, env: SearchQAVectorEnv) -> None:
        self.env = env

    @abstractmethod
    def act(self, running: Mapping[int, Transcript]) -> Iterable[tuple[int, str | None]]:
        """Say the next segment of each running episode.

        Args:
            running: By the number of its question, what has happened so far.

        Returns:
            The number and the segment of each, as they come and in any order: an episode that ends with its segment is
            done before the next one is taken. None ends the episode, for its tokens are spent.
        """

    def run(self, questions: Sequence[Question], *, skip: Collection[int] = ()) -> Iterator[Transcript]:
        """Answer questions; see `Method.run`."""
        for numbers, batch in batches(questions, self.env.num_envs, skip):
            yield from self._play(dict(zip(numbers, batch, strict=True)))

    def _play(self, questions: Mapping[int, Question]) -> Iterator[Transcript]:
        """Play one episode for each question, by its number, and yield each as soon as it has ended."""
        env = self.env
        running = {number: EpisodeState(question, env.rules) for number, question in questions.items()}
        while running:
            queries: dict[int, str] = {}
            for number, segment in self.act({number: state.transcript for number, state in running.items()}):
                state = running[number]
                if segment is None:
                    yield _cut(running.pop(number).transcript, env.rules)
                    continue
                state.act(segment)
                if state.query is not None:
                    queries[number] = state.query
                    continue
                state.advance(())
                if state.ended:
                    yield running.pop(number).transcript
            numbers = sorted(queries)  # who pays for a search that several ask for is not left to chance
            found = search_for(env.retriever, [queries[number] for number in numbers], env.top_k)
            for number, each in zip(numbers, found, strict=True):
                running[number].spend(each.spent)
                running[number].advance(each.hits)
                if running[number].ended:
                    yield running.pop(number).transcript


def _cut(transcript: Transcript, rules: Rules) -> Transcript:
    """An episode that leaves no room for another segment."""
    verdict = rules.dialect.judge_format(transcript.segments)
    return dataclasses.replace(transcript, stop_reason=StopReason.MAX_TOKENS, format=verdict)

"""Plays the environment through its text alone: for agents that need no tokens of a model.

The environment runs the queries, counts the budgets and judges the answers, as it does
for a trained policy.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from search_agents.methods.base import batches
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
    def act(self, running: Mapping[int, Transcript]) -> Sequence[str | None]:
        """Say the next segment of each running episode.

        Args:
            running: By the number of its question, what has happened so far.

        Returns:
            One segment for each, in that order; None ends the episode, for its tokens are spent.
        """

    def run(self, questions: Sequence[Question], *, skip: Collection[int] = ()) -> Iterator[Transcript]:
        """Answer questions; see `Method.run`."""
        for numbers, batch in batches(questions, self.env.num_envs, skip):
            yield from self._play(numbers, [question.id for question in batch])

    def _play(self, numbers: Sequence[int], ids: Sequence[str]) -> list[Transcript]:
        env = self.env
        mask = np.arange(env.num_envs) < len(ids)
        env.reset(options={"question": [*ids, *[None] * (env.num_envs - len(ids))], "reset_mask": mask})
        running = list(range(len(ids)))
        spent: dict[int, Transcript] = {}
        while running:
            transcripts = env.transcripts
            said = dict(zip(running, self.act({numbers[slot]: transcripts[slot] for slot in running}), strict=True))
            spent |= {slot: _cut(env, transcripts[slot]) for slot in running if said[slot] is None}
            # A slot that was cut is still running for the environment, which hears nothing more that counts.
            _, _, terminations, truncations, _ = env.step([said.get(slot) or "" for slot in range(env.num_envs)])
            running = [slot for slot in running if slot not in spent and not (terminations | truncations)[slot]]
        transcripts = env.transcripts
        return [spent.get(slot, transcripts[slot]) for slot in range(len(ids))]


def _cut(env: SearchQAVectorEnv, transcript: Transcript) -> Transcript:
    """An episode that leaves no room for another segment."""
    verdict = env.rules.dialect.judge_format(transcript.segments)
    return dataclasses.replace(transcript, stop_reason=StopReason.MAX_TOKENS, format=verdict)

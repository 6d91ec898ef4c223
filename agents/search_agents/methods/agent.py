"""Your own agent as a method: a class with two methods, played in the environment, scored as all the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

from search_agents.methods.base import Setting
from search_agents.methods.playing import PlayingMethod
from search_env.episode import EpisodeState
from search_env.types import Transcript

__all__ = ["Agent", "AgentMethod"]


@runtime_checkable
class Agent(Protocol):
    """Plays one episode after another, in the environment's own words.

    By hand it is played so::

        observation, info = env.reset()
        agent.reset(info)
        terminated = truncated = False
        while not (terminated or truncated):
            observation, reward, terminated, truncated, info = env.step(agent.act(observation))
    """

    def reset(self, info: Mapping[str, Any]) -> None:
        """Begin an episode.

        Args:
            info: As the environment's `reset` returns it: ``question``, ``stop``, the prompt's pieces …
        """
        ...

    def act(self, observation: str) -> str:
        """Say the next segment.

        Args:
            observation: The prompt at first, then what the last segment brought.

        Returns:
            A segment in the dialect of the environment: a query, or the answer.
        """
        ...


class AgentMethod(PlayingMethod):
    """An agent as a method; each episode in play has an agent of its own.

    Args:
        name: Its name in tables.
        make: Makes an agent, without arguments.
        setting: What the comparison holds fixed.
    """

    def __init__(self, name: str, make: Callable[[], Agent], setting: Setting) -> None:
        super().__init__(setting.env)
        self.name = name
        self._make = make
        self._agents: dict[int, Agent] = {}

    def act(self, running: Mapping[int, Transcript]) -> Iterator[tuple[int, str]]:
        """Say the next segments; see `PlayingMethod.act`."""
        self._agents = {number: agent for number, agent in self._agents.items() if number in running}
        for number, transcript in running.items():
            yield number, self._segment(number, transcript)

    def _segment(self, number: int, transcript: Transcript) -> str:
        if transcript.turns:
            return self._agents[number].act(transcript.turns[-1].observation)
        opening = EpisodeState(transcript.question, self.env.rules)
        agent = self._agents[number] = self._make()
        agent.reset(opening.opening_info())
        return agent.act(opening.prompt.text)

"""verifiers, and with it prime-rl: a taskset of our questions and the environment that plays them (read at 0.4.0).

Its plug-ins are found by the name of a module that stands at the top, so put this into ``my_search.py``, where Python
finds it, and name it in configs or in ``vf-eval my-search``::

    from search_env.interop.verifiers import SearchEpisodes, SearchTaskset

    __all__ = ["SearchEpisodes", "SearchTaskset"]

The model writes one chat message a turn, the segment; what the environment answers is the next message of the user.
The server must stop the model at the dialect's stop strings and keep them in the text (vLLM: ``stop`` and
``include_stop_str_in_output`` among the sampling settings), or leave it to the model to end its message there.

If the search fails for good, the episode fails: its error is on the episode, which is not ``ok``, has no reward, and
is asked again on resume. A rollout that a limit of verifiers' own ends is judged as one without an answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from pydantic import Field

from search_env.errors import MissingDependencyError
from search_env.interop.shared import DEFAULT_ENV, chat_messages, find_factory, numbers, reward_of_unfinished

try:
    import verifiers.v1 as vf
except ImportError as error:
    raise MissingDependencyError("this adapter needs verifiers. Run: pip install 'search-env[verifiers]'") from error

__all__ = ["SearchData", "SearchEpisodes", "SearchEpisodesConfig", "SearchTask", "SearchTaskset", "SearchTasksetConfig"]


class SearchTasksetConfig(vf.TasksetConfig):
    """Which questions."""

    env: str = DEFAULT_ENV
    """Id of a registered environment."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings of `SearchQAEnv`, plain values."""


class SearchData(vf.TaskData):
    """A question: its words are the prompt; its answers stay with the environment."""

    env: str
    settings: dict[str, Any]


class SearchTask(vf.Task[SearchData]):
    """One question."""


class SearchTaskset(vf.Taskset[SearchTask, SearchTasksetConfig]):
    """The questions of an environment, each with the prompt that the environment words."""

    def load(self) -> Iterator[SearchTask]:
        """Every question, in the order of the dataset."""
        config = self.config
        make = find_factory(config.env, config.settings, chat=True)
        env = make()
        for question in make.dataset.questions:
            _, info = env.reset(options={"question": question.id})
            *system, user = chat_messages(info)
            yield SearchTask(
                SearchData(
                    id=question.id,
                    prompt=user["content"],
                    system_prompt=system[0]["content"] if system else None,
                    env=config.env,
                    settings=config.settings,
                ),
                config.task,
            )


class SearchEpisodesConfig(vf.EnvConfig):
    """Who plays."""

    player: vf.AgentConfig = vf.AgentConfig(harness={"id": "null"}, runtime=vf.SubprocessConfig())
    """The model: by default a plain chat without tools of its own, which needs no sandbox."""


class SearchEpisodes(vf.Env[SearchEpisodesConfig]):
    """Plays a question with a `SearchQAEnv` as the user of the chat."""

    async def run(self, task: SearchTask, agents: vf.Agents) -> None:
        """One episode.

        Raises:
            RetrieverUnavailable: If the search failed for good; verifiers records it as the episode's error.
        """
        env = find_factory(task.data.env, task.data.settings, chat=True)()
        env.reset(options={"question": task.data.id})
        info: dict[str, Any] | None = None
        reward: float | None = None
        async with agents.player.interaction(task) as interaction:
            said = await interaction.turn()
            while not said.terminated:
                step = await asyncio.to_thread(env.step, said.last_reply)
                info = step.info
                if step.terminated or step.truncated:
                    reward = step.reward
                    break
                said = await interaction.turn(step.observation)
        trace = interaction.trace
        if not trace.ok:
            return  # the model or its program failed: nothing to judge
        trace.record_reward("search_env", reward_of_unfinished(env) if reward is None else reward)
        if info is not None:
            trace.record_metrics(numbers(info))

"""SkyRL-Gym: its search environment, a new one for every episode, as its generator makes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import skyrl_gym
from skyrl_gym.envs.search.env import SearchEnvConfig
from skyrl_gym.tools import search as search_tool

from benchmarks.peers.work import Outcome, Work, serve


class SkyRL:
    """SkyRL's environments one by one."""

    distribution = "skyrl-gym"
    settings = (
        'skyrl_gym.make("search") for every episode, logging off; the request to the server is replaced, its answer '
        "already read from JSON; the environments stepped in a loop"
    )

    def __init__(self, work: Work) -> None:
        self._config = SearchEnvConfig(log_requests=False, topk=work.top_k)
        self._questions = [[{"role": "user", "content": question}] for question in work.questions]
        self._extras = [
            {"reward_spec": {"ground_truth": {"target": [answer]}}, "max_turns": len(work.actions) + 1}
            for answer in work.answers
        ]
        found = {
            query: {
                "result": [
                    [{"document": {"contents": f"{title}\n{text}"}, "score": 1.0} for title, text in passages],
                ]
            }
            for query, passages in work.found.items()
        }
        search_tool.call_search_api = lambda query, **_: (found[query], None)
        self._envs: list[Any] = []

    def reset(self) -> None:
        """Make every slot's environment."""
        self._envs = [skyrl_gym.make("search", env_config=self._config, extras=extras) for extras in self._extras]
        for env, question in zip(self._envs, self._questions, strict=True):
            env.init(question)

    def actions(self, texts: Sequence[str]) -> Sequence[str]:
        """The texts themselves."""
        return texts

    def step(self, actions: Sequence[str]) -> Any:
        """Slot after slot."""
        return [env.step(action) for env, action in zip(self._envs, actions, strict=True)]

    def read(self, result: Any) -> list[Outcome]:
        """What every slot got."""
        return [
            Outcome("".join(message["content"] for message in one["observations"]), one["reward"], one["done"])
            for one in result
        ]


if __name__ == "__main__":
    serve(SkyRL)

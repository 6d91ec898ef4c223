"""SkyRL-Gym: an environment for `skyrl_gym.make` (read at skyrl-gym 0.4.0, SkyRL's generator at commit a956457).

`register` makes an environment with its settings known under a name; call it where SkyRL's generator runs, at the
beginning of its Ray entry point. A row of SkyRL's data names it by ``env_class``, and its column ``question`` (an id
or index) says what is asked; without one, a question is drawn.

The prompt of the row is replaced by the environment's. SkyRL must stop the model at the dialect's stop strings:
``generator.sampling_params.stop='["</search>", "</answer>"]'``; it keeps them in the text by itself.

skyrl-gym has no word for an invalid rollout: if the search fails for good, `step` raises `RetrieverUnavailable`,
which ends the generation of the batch. Wrap the retriever (``{name: resilient, of: …}``) so that it takes a real
outage to get there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from search_env.errors import MissingDependencyError
from search_env.interop.shared import DEFAULT_ENV, Message, chat_messages, find_factory, numbers

try:
    import skyrl_gym
    from skyrl_gym.envs.base_text_env import BaseTextEnv, BaseTextEnvStepOutput
except ImportError as error:
    raise MissingDependencyError("this adapter needs skyrl-gym. Run: pip install 'search-env[skyrl]'") from error

__all__ = ["SearchTextEnv", "register"]


class SearchTextEnv(BaseTextEnv):
    """One episode of a `SearchQAEnv` as SkyRL steps through it.

    Args:
        env_config: Not looked at: SkyRL's config has no place for an environment that it does not know.
        extras: The row's other columns; ``question`` names the question.
        env_id: A registered id.
        settings: Of `SearchQAEnv`; plain values.

    Raises:
        ConfigError: If a setting is wrong.
        DatasetError: If the data is missing or malformed.
    """

    def __init__(
        self,
        env_config: Any = None,
        extras: Mapping[str, Any] | None = None,
        *,
        env_id: str = DEFAULT_ENV,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self._env = find_factory(env_id, settings or {}, chat=True)()
        self._question = (extras or {}).get("question")
        self._metrics: dict[str, float] = {}
        self.max_turns = self._env.rules.budget.max_turns

    def init(self, prompt: list[Message]) -> tuple[list[Message], dict[str, Any]]:
        """Ask the question: the environment's own prompt, whatever the row's says."""
        self.turns = 0
        self._metrics = {}
        options = None if self._question is None else {"question": self._question}
        _, info = self._env.reset(options=options)
        return chat_messages(info), {"question_id": info["question_id"], "stop": info["stop"]}

    def step(self, action: str) -> BaseTextEnvStepOutput:
        """Take one segment.

        Raises:
            RetrieverUnavailable: If the search failed for good; there is no reward.
        """
        step = self._env.step(action)
        self.turns += 1
        self._metrics = numbers(step.info)
        observations = [{"role": "user", "content": step.observation}] if step.observation else []
        return BaseTextEnvStepOutput(
            observations=observations,
            reward=step.reward,
            done=step.terminated or step.truncated,
            metadata=step.info,
        )

    def get_metrics(self) -> dict[str, Any]:
        """The numbers of the last step: after the last one, the episode's."""
        return self._metrics


def register(name: str, env_id: str = DEFAULT_ENV, **settings: Any) -> None:
    """Make an environment known to `skyrl_gym.make`.

    Args:
        name: Its name in SkyRL, not taken yet.
        env_id: A registered id.
        **settings: Of `SearchQAEnv`; plain values.
    """
    kwargs = {"env_id": env_id, "settings": settings}
    skyrl_gym.register(id=name, entry_point=f"{__name__}:{SearchTextEnv.__name__}", kwargs=kwargs)

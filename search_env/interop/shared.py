"""What the adapters share: environments over one corpus, chat messages, and the judgement of an unfinished episode.

A trainer makes an environment for each rollout. `EnvFactory` reads the questions and
opens the index once, and lets every environment of a process search the same.
"""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Mapping
from typing import Any, cast

from search_env.dialects.base import PromptStyle
from search_env.dialects.tagged import TaggedDialect
from search_env.env import SearchQAEnv
from search_env.errors import ConfigError, unknown_name
from search_env.registration import ENVIRONMENTS
from search_env.types import StopReason

__all__ = ["DEFAULT_ENV", "EnvFactory", "Message", "chat_messages", "find_factory", "numbers", "reward_of_unfinished"]

DEFAULT_ENV = "SearchQA-FictionalWiki-v0"

Message = dict[str, str]
"""``{"role": …, "content": …}``."""


class EnvFactory:
    """Makes environments that share questions and index.

    Args:
        env_id: A registered id; `search_env.registration.ENVIRONMENTS` names them.
        chat: The model answers in chat messages, which nobody can begin for it: no prompt puts words in its mouth,
            and a dialect that wants reasoning first expects the model to write that tag itself. Without settings the
            prompt is then ``instruct`` and the dialect ``search-r1``, whose every message stands by itself.
        **settings: Of `SearchQAEnv`.

    Raises:
        ConfigError: If a setting is wrong, or a prompt file puts words in the mouth of a chat model.
        DatasetError: If the data is missing or malformed.

    Example:
        >>> make = EnvFactory("SearchQA-FictionalWiki-v0", chat=True)
        >>> make().retriever is make().retriever
        True
    """

    def __init__(self, env_id: str = DEFAULT_ENV, *, chat: bool = False, **settings: Any) -> None:
        defaults = {"prompt": PromptStyle.INSTRUCT, "dialect": "search-r1"} if chat else {}
        if env_id not in ENVIRONMENTS:
            raise ConfigError(unknown_name("environment", env_id, ENVIRONMENTS))
        first = SearchQAEnv(**{"dataset": ENVIRONMENTS[env_id], **defaults, **settings})
        self.dataset, self.retriever, self.rules = first.dataset, first.retriever, first.rules
        if chat:
            self.rules = dataclasses.replace(self.rules, dialect=_without_prefill(self.rules.dialect))
        opened = {"dataset": first.dataset, "data": None, "retriever": first.retriever}
        self._settings = {**defaults, **settings, **opened}

    def __call__(self) -> SearchQAEnv:
        """One more environment."""
        env = SearchQAEnv(**self._settings)
        env.rules = self.rules
        return env


_LOCK = threading.Lock()
_FACTORIES: dict[str, EnvFactory] = {}


def find_factory(env_id: str, settings: Mapping[str, Any], *, chat: bool) -> EnvFactory:
    """The factory of this process for plain settings, made when it is first asked for; free to be used by threads."""
    key = json.dumps([env_id, dict(settings), chat], sort_keys=True)
    with _LOCK:
        if key not in _FACTORIES:
            _FACTORIES[key] = EnvFactory(env_id, chat=chat, **settings)
        return _FACTORIES[key]


def chat_messages(opening: Mapping[str, Any]) -> list[Message]:
    """The prompt of an episode as chat messages, from the info of its reset."""
    system = [{"role": "system", "content": opening["prompt_system"]}] if opening["prompt_system"] else []
    return [*system, {"role": "user", "content": opening["prompt_user"]}]


def reward_of_unfinished(env: SearchQAEnv) -> float:
    """The reward of a running episode that the trainer ended, for a budget of its own: one without an answer."""
    transcript = env.transcript
    verdict = env.rules.dialect.judge_format(transcript.segments)
    return env.rules.reward(dataclasses.replace(transcript, stop_reason=StopReason.MAX_TOKENS, format=verdict)).total


def numbers(info: Mapping[str, Any]) -> dict[str, float]:
    """The metrics of a step's info, its reward parts among them as ``reward/<part>``."""
    metrics = {name: value for name, value in info.items() if isinstance(value, float)}
    return metrics | {f"reward/{name}": value for name, value in info["reward_parts"].items()}


def _without_prefill(dialect: Any) -> TaggedDialect:
    bare = dataclasses.replace(cast(TaggedDialect, dialect), default_prefill="")
    if bare.prefill:
        raise ConfigError(
            f"the prompt file ends in {bare.prefill!r}, which would open the model's message for it; a chat cannot do "
            "that. Take the tag away from the end of the file; the format rules then expect the model to write it."
        )
    return bare

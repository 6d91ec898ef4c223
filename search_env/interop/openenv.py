"""OpenEnv: an environment and its server (read at openenv 0.10.0).

``create_server("SearchQA-FictionalWiki-v0")`` is the application to run with uvicorn; any OpenEnv client plays it,
each connection an episode of its own, all over one index. An action is one segment of text, as in `SearchQAEnv`;
`SearchObservation.text` is what the model reads next.

If the search fails for good, the step is answered by OpenEnv's error message, which its clients raise as
``RuntimeError``: there is no observation and no reward. The episode is as it was before, so the same segment may be
sent again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from search_env.errors import MissingDependencyError
from search_env.interop.shared import DEFAULT_ENV, EnvFactory

try:
    from openenv.core.env_server import Action, Environment, Observation, State, create_fastapi_app
except ImportError as error:
    raise MissingDependencyError("this adapter needs openenv. Run: pip install 'search-env[openenv]'") from error

if TYPE_CHECKING:
    from fastapi import FastAPI

    from search_env.env import SearchQAEnv

__all__ = ["SearchEnvironment", "SearchObservation", "SearchState", "SegmentAction", "create_server"]


class SegmentAction(Action):
    """One segment of the model's text."""

    segment: str
    """Up to and with one of the stop strings."""


class SearchObservation(Observation):
    """What the model reads next, beside OpenEnv's ``reward`` and ``done``."""

    text: str
    """Exactly that text; empty at the end of the episode."""
    info: dict[str, Any]
    """The info of `SearchQAEnv`."""


class SearchState(State):
    """Where the episode stands; never the answer."""

    question_id: str = ""
    searches: int = 0


class SearchEnvironment(Environment[SegmentAction, SearchObservation, SearchState]):
    """A `SearchQAEnv` as OpenEnv plays it.

    Args:
        env: The environment.
    """

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self, env: SearchQAEnv) -> None:
        super().__init__()
        self._env = env
        self._state = SearchState()

    def reset(
        self,
        seed: int | None = None,
        episode_id: str | None = None,
        question: str | int | None = None,
        **kwargs: Any,
    ) -> SearchObservation:
        """Ask a question, by id or index, or draw one."""
        text, info = self._env.reset(seed=seed, options=None if question is None else {"question": question})
        self._state = SearchState(episode_id=episode_id, question_id=info["question_id"])
        return SearchObservation(text=text, info=info)

    def step(self, action: SegmentAction, timeout_s: float | None = None, **kwargs: Any) -> SearchObservation:
        """Take one segment.

        Raises:
            RetrieverUnavailable: If the search failed for good.
        """
        step = self._env.step(action.segment)
        self._state.step_count += 1
        self._state.searches = int(step.info["searches"])
        return SearchObservation(
            text=step.observation, info=step.info, reward=step.reward, done=step.terminated or step.truncated
        )

    @property
    def state(self) -> SearchState:
        """Where the episode stands."""
        return self._state


def create_server(env_id: str = DEFAULT_ENV, *, max_sessions: int = 64, **settings: Any) -> FastAPI:
    """The application that serves an environment.

    Args:
        env_id: A registered id.
        max_sessions: Connections at the same time.
        **settings: Of `SearchQAEnv`.

    Raises:
        ConfigError: If a setting is wrong.
        DatasetError: If the data is missing or malformed.
    """
    make = EnvFactory(env_id, **settings)
    app: FastAPI = create_fastapi_app(
        lambda: SearchEnvironment(make()),
        SegmentAction,
        SearchObservation,
        max_concurrent_envs=max_sessions,
        env_name="search-env",
        state_cls=SearchState,
    )
    return app

"""TRL: an environment for the ``environment_factory`` of `trl.GRPOTrainer` (read at TRL 1.16).

TRL has the model call functions, in the way its chat template writes them, and turns the public methods of the
environment into those functions. A call is translated into the segment that means the same in the dialect, so
budgets, documents and reward are those of `SearchQAEnv`. The format of a call is TRL's business: whatever it could
read is well formed here.

If the search fails for good, `SearchTools.get_reward` is None. TRL takes such a rollout for one that cannot be
scored: it is left out of the mean of its group and its advantage is 0 (its tokens still count where TRL averages the
loss over tokens, and in a KL term). Give the trainer no other reward function: TRL adds up those there are, and None
beside a number is 0. TRL goes on generating until the model calls nothing more, and must give the model some text for
a failed call: it is a fixed line that tells nothing of the failure. A rollout that ends without an answer is judged
as that.

This module imports nothing of TRL.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from search_env.dialects import make_inert
from search_env.dialects.base import TagPair
from search_env.env import SearchQAEnv
from search_env.errors import RetrieverUnavailable
from search_env.interop.shared import DEFAULT_ENV, EnvFactory, reward_of_unfinished

__all__ = ["SearchTools", "environment_factory", "question_rows"]

_ENDED = "The episode has ended. Write no further call."


class SearchTools:
    """One rollout: the functions that the model may call.

    Args:
        env: What answers; made for chat.
    """

    def __init__(self, env: SearchQAEnv) -> None:
        self._env = env
        self._reward: float | None = None
        self._ended = True

    def reset(self, question: str | int | None = None, **row: Any) -> str:
        """Ask the question that the row of the data set names by ``question``, its id or index."""
        options = None if question is None else {"question": question}
        _, info = self._env.reset(options=options)
        self._reward, self._ended = None, False
        return str(info["prompt_user"])

    def search(self, query: str) -> str:
        """Search for documents. Ask for one fact at a time.

        Args:
            query: Keywords that name one relation of one subject.

        Returns:
            The documents found, best first.
        """
        return self._act(self._env.rules.dialect.query, query)

    def answer(self, text: str) -> str:
        """Give the final answer. Call it once, when no fact is missing any more.

        Args:
            text: A few words, or yes or no where the question asks for that, without explanation.

        Returns:
            That the episode has ended.
        """
        return self._act(self._env.rules.dialect.answer, text)

    def get_reward(self) -> float | None:
        """The episode's reward; None if its search failed, which takes the rollout out of the loss."""
        return self._reward if self._ended else reward_of_unfinished(self._env)

    def _act(self, tags: TagPair, content: str) -> str:
        if self._ended:
            return _ENDED
        try:
            step = self._env.step(self._segment(tags, content))
        except RetrieverUnavailable:
            self._ended = True
            return _ENDED
        self._ended = step.terminated or step.truncated
        self._reward = step.reward if self._ended else None
        return step.observation.strip() or _ENDED

    def _segment(self, tags: TagPair, content: str) -> str:
        """The call in the words of the dialect: its tags, with a block of reasoning where the format wants one."""
        dialect = self._env.rules.dialect
        opens = dialect.thinks_each_turn or not self._env.transcript.turns
        closes = dialect.thinks_each_turn or tags == dialect.answer
        thought = f"{dialect.think.open if opens else ''} {dialect.think.close if closes else ''}".strip()
        return f"{thought} {tags.open} {make_inert(str(content))} {tags.close}".strip()


def environment_factory(env_id: str = DEFAULT_ENV, **settings: Any) -> Callable[[], SearchTools]:
    """What `GRPOTrainer` takes as ``environment_factory``; all its environments share questions and index.

    Args:
        env_id: A registered id.
        **settings: Of `SearchQAEnv`. `max_turns` does not end TRL's loop: give `GRPOConfig` the same number as
            ``max_tool_calling_iterations``.

    Raises:
        ConfigError: If a setting is wrong.
        DatasetError: If the data is missing or malformed.

    Example:
        >>> tools = environment_factory(reward={"f1": 1.0})()
        >>> tools.reset(question=0).endswith("?")
        True
        >>> tools.search("director of the film").startswith("<information>Doc 1(Title: ")
        True
        >>> tools.answer("nobody"), tools.get_reward()
        ('The episode has ended. Write no further call.', 0.0)
    """
    make = EnvFactory(env_id, chat=True, **settings)
    return lambda: SearchTools(make())


def question_rows(env_id: str = DEFAULT_ENV, **settings: Any) -> list[dict[str, Any]]:
    """A row for each question: `datasets.Dataset.from_list` makes of them the ``train_dataset`` of the trainer.

    Args:
        env_id: A registered id.
        **settings: Of `SearchQAEnv`.
    """
    questions = EnvFactory(env_id, **settings).dataset.questions
    return [{"prompt": [{"role": "user", "content": ""}], "question": question.id} for question in questions]

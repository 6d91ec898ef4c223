"""What every method of the results table is, and what all of them work with.

Methods are compared under one `Setting`: the same model, corpus, retriever, number of
documents and budgets. A method returns transcripts, so that one scorer reads them all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

from search_agents.engines.base import Capability, Engine, SamplingParams, TokenEngine
from search_env.dialects.base import Dialect, PromptStyle
from search_env.errors import ConfigError
from search_env.types import Question, Transcript
from search_env.vector import SearchQAVectorEnv

__all__ = [
    "Method",
    "Setting",
    "able",
    "batches",
    "begin_query",
    "env_like",
    "open_answer",
    "require_sessions",
]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What a comparison holds fixed."""

    engine: Engine
    env: SearchQAVectorEnv
    """Gives dataset, retriever, number of documents, dialect and prompt style; its slots are the batch size."""
    sampling: SamplingParams
    """Temperature, and the most tokens of one segment."""
    max_tokens: int
    """The most tokens of an episode: prompt, segments and documents."""
    chat: bool
    """Whether prompts go through the model's chat template."""
    seed: int = 0

    @property
    def knows_protocol(self) -> bool:
        """Whether the model was trained on the dialect, so that no prompt explains anything to it."""
        return self.env.rules.style is PromptStyle.BARE


class Method(Protocol):
    """Answers questions in one way.

    It may also have a `note` and a `fingerprint`, see `StepwiseMethod`.
    """

    @property
    def name(self) -> str:
        """Its name in tables and on the command line."""
        ...

    def run(self, questions: Sequence[Question], *, skip: Collection[int] = ()) -> Iterator[Transcript]:
        """Answer questions.

        Args:
            questions: Questions of the setting's dataset.
            skip: Indices of questions that are not asked. What is sampled for the others does not depend on it.

        Yields:
            One finished transcript for each question that is asked, as soon as it is done and in any order; that of an
            invalid episode has the stop reason ``retriever_unavailable``.

        Raises:
            ConfigError: If a budget of the setting cannot hold any prompt; a question too long is only truncated.
            ModelError: If the setting asks for a chat template that the model lacks.
            EngineUnavailable: If the server of the model failed for good.
        """
        ...


def require_sessions(engine: Engine, what: str) -> TokenEngine:
    """The engine as one whose tokens can be had.

    Raises:
        ConfigError: If it is none.
    """
    if Capability.SESSIONS not in engine.capabilities:
        raise ConfigError(
            f"{what} needs an engine that opens sessions, and {engine.name} cannot: it can {able(engine)}. "
            "Use the engine 'transformers'."
        )
    return cast(TokenEngine, engine)


def env_like(env: SearchQAVectorEnv, **changed: Any) -> SearchQAVectorEnv:
    """An environment with the questions, corpus, retriever and budgets of another.

    Args:
        env: The other one.
        **changed: Settings of `SearchQAEnv` that differ, for example `dialect`.
    """
    rules = env.rules
    settings = {
        "dataset": env.dataset,
        "retriever": env.retriever,
        "dialect": rules.dialect.name,
        "prompt": rules.style.value,
        "reward": rules.reward,
        "top_k": env.top_k,
        "max_searches": rules.budget.max_searches,
        "max_turns": rules.budget.max_turns,
        "max_chars": rules.budget.max_chars,
    }
    made = SearchQAVectorEnv(env.num_envs, **(settings | changed))
    if "dialect" not in changed:
        made.rules = dataclasses.replace(made.rules, dialect=rules.dialect)  # with a user's own prompt, if it has one
    return made


def able(engine: Engine) -> str:
    """What an engine can do, for messages."""
    return ", ".join(sorted(engine.capabilities))


def batches(
    questions: Sequence[Question], size: int, skip: Collection[int] = ()
) -> Iterator[tuple[Sequence[int], Sequence[Question]]]:
    """Questions a batch at a time, each batch with the numbers of its questions; those in `skip` are left out."""
    asked = [number for number in range(len(questions)) if number not in skip]
    for start in range(0, len(asked), size):
        numbers = asked[start : start + size]
        yield numbers, [questions[number] for number in numbers]


def begin_query(dialect: Dialect, response: str) -> str:
    """What must follow a response so that nothing but a query can come next.

    Args:
        dialect: The protocol.
        response: All that the model has read or written after the question, the prompt's prefill included.

    Returns:
        A block of reasoning where the dialect wants one and there is none, and the opening query tag.
    """
    turn = _since_documents(dialect, response)
    thought = "" if dialect.think.open in turn else f"{dialect.think.open}{dialect.think.close}\n"
    return thought + dialect.query.open


def open_answer(dialect: Dialect, response: str) -> str:
    """What must follow a response so that nothing but the answer can come next.

    Args:
        dialect: The protocol.
        response: All that the model has read or written after the question, the prompt's prefill included.

    Returns:
        The end of the reasoning, unless it has ended, and the opening answer tag.
    """
    turn = _since_documents(dialect, response)
    opened, closed = turn.count(dialect.think.open), turn.count(dialect.think.close)
    if opened == 0:
        return f"{dialect.think.open}{dialect.think.close}\n{dialect.answer.open}"
    return f"{dialect.think.close if opened > closed else ''}\n{dialect.answer.open}"


def _since_documents(dialect: Dialect, response: str) -> str:
    """The part of a response that one block of reasoning belongs to."""
    return response.rpartition(dialect.documents.close)[2] if dialect.thinks_each_turn else response

"""What a method asks for on the way to an answer, one step at a time.

A method is written as if there were one question: a generator that yields steps and is
given their results. Whoever plays it (`search_agents.methods.stepwise`) plays many
questions at once and runs what all of them ask for as one batch::

    def answer(self, question):
        hits = yield from retrieve(question.text)
        reply = yield from generate("answer", Prompt(user=passages(hits) + question.text))
        return reply.text
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from search_agents.engines.base import Completion, ScoredText
from search_agents.engines.confidence import TokenConfidences
from search_env.types import Hit, Prompt

__all__ = [
    "Confidence",
    "Generate",
    "Mixture",
    "Note",
    "Retrieve",
    "Score",
    "Step",
    "Steps",
    "confidence",
    "generate",
    "generate_all",
    "mixture",
    "note",
    "retrieve",
    "retrieve_all",
    "score_all",
    "side_by_side",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Generate:
    """One text from the model; its result is a `Completion`."""

    purpose: str
    """What it is for, in one or two words; it stands in the transcript."""
    prompt: Prompt
    stop: tuple[str, ...] = ()
    """Strings after which the text ends."""
    max_tokens: int | None = None
    """The most tokens of the text; None takes the setting's, which no step exceeds."""
    temperature: float | None = None
    """None takes the setting's."""
    logprobs: bool = False
    """Whether the method reads the log-probabilities of the text's tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """One text that several prompts write together; its result is a `Completion`.

    Each token is drawn from the mean of the distributions that the model has after the prompts, and appended to all of
    them; see `search_agents.engines.mixture`. The engine must have `Capability.NEXT_TOKEN`.
    """

    purpose: str
    prompts: tuple[Prompt, ...]
    weights: tuple[float, ...]
    """One a prompt; they sum to 1."""
    stop: tuple[str, ...] = ()
    """As of `Generate`, like the rest."""
    max_tokens: int | None = None
    temperature: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The likelihood of a text; its result is a `ScoredText`."""

    purpose: str
    context: str
    """What the model has read before."""
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Confidence:
    """How sure the model is of each token of a text, beside its five most likely ones; a `TokenConfidences`.

    The engine must have `Capability.NEXT_TOKEN`.
    """

    purpose: str
    prompt: Prompt
    text: str
    """What follows the prompt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrieve:
    """One search; its result is a tuple of `Hit`, best first. It is a turn of the transcript."""

    query: str
    top_k: int | None = None
    """None takes the environment's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something the method found out by itself, for those who read the transcript; its result is None."""

    purpose: str
    text: str


Step = Generate | Mixture | Score | Confidence | Retrieve | Note

T = TypeVar("T")

Steps = Generator[Sequence[Step], Sequence[Any], T]
"""A generator that yields steps to be run together, is sent their results in the same order, and returns a T."""


def generate(
    purpose: str,
    prompt: Prompt,
    *,
    stop: tuple[str, ...] = (),
    max_tokens: int | None = None,
    temperature: float | None = None,
) -> Steps[Completion]:
    """Ask the model for one text; see `Generate`."""
    (completion,) = yield [
        Generate(purpose=purpose, prompt=prompt, stop=stop, max_tokens=max_tokens, temperature=temperature)
    ]
    return completion  # type: ignore[no-any-return]


def generate_all(
    purpose: str,
    prompts: Sequence[Prompt],
    *,
    stop: tuple[str, ...] = (),
    max_tokens: int | None = None,
    temperature: float | None = None,
    logprobs: bool = False,
) -> Steps[list[Completion]]:
    """Ask the model for several texts at once; a prompt given twice is sampled twice, with different seeds."""
    completions = yield [
        Generate(
            purpose=purpose,
            prompt=prompt,
            stop=stop,
            max_tokens=max_tokens,
            temperature=temperature,
            logprobs=logprobs,
        )
        for prompt in prompts
    ]
    return list(completions)


def mixture(
    purpose: str,
    prompts: Sequence[Prompt],
    weights: Sequence[float],
    *,
    stop: tuple[str, ...] = (),
    max_tokens: int | None = None,
    temperature: float | None = None,
) -> Steps[Completion]:
    """Ask the model for one text after several prompts at once; see `Mixture`."""
    (completion,) = yield [
        Mixture(
            purpose=purpose,
            prompts=tuple(prompts),
            weights=tuple(weights),
            stop=stop,
            max_tokens=max_tokens,
            temperature=temperature,
        )
    ]
    return completion  # type: ignore[no-any-return]


def score_all(purpose: str, pairs: Sequence[tuple[str, str]]) -> Steps[list[ScoredText]]:
    """Ask how likely texts are, each given as context and text; see `Score`."""
    scores = yield [Score(purpose=purpose, context=context, text=text) for context, text in pairs]
    return list(scores)


def confidence(purpose: str, prompt: Prompt, text: str) -> Steps[TokenConfidences]:
    """Ask how sure the model is of each token of a text; see `Confidence`."""
    (found,) = yield [Confidence(purpose=purpose, prompt=prompt, text=text)]
    return found  # type: ignore[no-any-return]


def retrieve(query: str, top_k: int | None = None) -> Steps[tuple[Hit, ...]]:
    """Search once; see `Retrieve`."""
    (hits,) = yield [Retrieve(query=query, top_k=top_k)]
    return hits  # type: ignore[no-any-return]


def retrieve_all(queries: Sequence[str], top_k: int | None = None) -> Steps[list[tuple[Hit, ...]]]:
    """Search for several queries at once."""
    found = yield [Retrieve(query=query, top_k=top_k) for query in queries]
    return list(found)


def note(purpose: str, text: str) -> Steps[None]:
    """Leave a note in the transcript; see `Note`."""
    yield [Note(purpose=purpose, text=text)]


def side_by_side(branches: Sequence[Steps[T]]) -> Steps[list[T]]:
    """Run several generators at once: what they ask for at the same time is one batch.

    Args:
        branches: Fresh generators.

    Returns:
        What each returned, in order.
    """
    returned: dict[int, T] = {}
    asked: dict[int, Sequence[Step]] = {}

    def go_on(number: int, results: Sequence[Any] | None) -> None:
        try:
            asked[number] = branches[number].send(results)  # type: ignore[arg-type]
        except StopIteration as stop:
            asked.pop(number, None)
            returned[number] = stop.value

    for number in range(len(branches)):
        go_on(number, None)
    while asked:
        results = iter((yield [step for steps in asked.values() for step in steps]))
        for number, steps in list(asked.items()):
            go_on(number, [next(results) for _ in steps])
    return [returned[number] for number in range(len(branches))]

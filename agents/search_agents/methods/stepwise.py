"""Plays methods that are written as steps: many questions at once, and a transcript of each.

What the questions in play ask for at the same time is one batch for the engine and one
for the retriever. What is sampled for a question depends on its number and its own
steps, never on the questions beside it.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, cast

from search_agents.config.sections import Section
from search_agents.engines.base import (
    Capability,
    Completion,
    GenerationRequest,
    SamplingParams,
    ScoredText,
    ScoringRequest,
    TokenEngine,
    generate_each,
)
from search_agents.engines.confidence import TokenConfidences, token_confidences
from search_agents.methods.base import Setting
from search_agents.methods.prompts import SHORT_ANSWER_ENDS, first_line, passages, short_answer_prompt
from search_agents.methods.steps import Confidence, Generate, Mixture, Note, Retrieve, Score, Step, Steps, generate
from search_agents.rollout.collect import derive_seed
from search_agents.rollout.found import Found, search_for
from search_env.dialects import make_inert
from search_env.retrieval.metering import Spent, add_spent
from search_env.types import Action, ActionKind, Call, FormatVerdict, Hit, Question, StopReason, Transcript, Turn

__all__ = ["NoOptions", "StepwiseMethod"]


class NoOptions(Section):
    """A method without options of its own."""


class StepwiseMethod(ABC):
    """A method whose `answer` is a generator of steps; see `search_agents.methods.steps`.

    Args:
        setting: What the comparison holds fixed.
        options: What the method leaves open; None takes its paper's defaults.
    """

    name: str
    """Its name in tables; what is not quite the method says so in it."""
    needs: ClassVar[frozenset[Capability]] = frozenset({Capability.GENERATE})
    """What the engine must be able to do."""
    Options: ClassVar[type[Section]] = NoOptions
    """Its options; the docstring under a field is its help text."""
    checkpoint: ClassVar[str | None] = None
    """Hub id of the model that the method's row is about, where it is about one."""

    def __init__(self, setting: Setting, options: Any = None) -> None:
        self.setting = setting
        self.options: Any = self.Options() if options is None else options

    @property
    def note(self) -> str:
        """What else a reader of the method's row must know; empty if nothing."""
        model = self.setting.engine.name
        if self.checkpoint is None or Path(model).name == Path(self.checkpoint).name:
            return ""
        return f"checkpoint {self.checkpoint} not run: the model is {model}"

    @property
    def fingerprint(self) -> str | None:
        """Tells the trained part in use from others by its content, never by its path; None for a method without one.

        It may have to load and read the whole part, so whoever needs it asks once.
        """
        return None

    @abstractmethod
    def answer(self, question: Question) -> Steps[str]:
        """Find the answer to a question; empty if there is none. The question's answers are not for it to read."""

    def run(self, questions: Sequence[Question], *, skip: Collection[int] = ()) -> Iterator[Transcript]:
        """Answer questions; see `Method.run`."""
        waiting = deque(number for number in range(len(questions)) if number not in skip)
        running: list[_Play] = []
        while waiting or running:
            while waiting and len(running) < self.setting.env.num_envs:
                number = waiting.popleft()
                running.append(_Play(self.answer(questions[number]), number, questions[number]))
            yield from (play.transcript() for play in running if play.ended)
            running = [play for play in running if not play.ended]
            yield from (play.transcript() for play in _run_steps(self.setting, running) if play.ended)
            running = [play for play in running if not play.ended]

    def short_answer(self, question: Question, task: str, *, purpose: str = "answer") -> Steps[str]:
        """Let the model answer briefly: the reader that all methods share where their paper names no other.

        Args:
            question: The question.
            task: What the model is to do, and all it may read.
            purpose: See `Generate.purpose`.
        """
        prompt = short_answer_prompt(task, make_inert(question.text), chat=self.setting.chat)
        return first_line((yield from generate(purpose, prompt, stop=SHORT_ANSWER_ENDS)).text)


class _Play:
    """One question in play: its generator, and what has been done for it."""

    def __init__(self, steps: Steps[str], number: int, question: Question) -> None:
        self._steps, self._number, self._question = steps, number, question
        self._sampled = 0
        self._turns: list[Turn] = []
        self._calls: list[Call] = []
        self._segment = ""
        self._spent: Spent = {}
        self._answer = ""
        self._stop_reason: StopReason | None = None
        self.asked: Sequence[Step] = ()
        """The steps that are to be run now."""
        self._send(None)

    @property
    def ended(self) -> bool:
        return self._stop_reason is not None

    def seed(self, base: int) -> int:
        """The seed of the next text."""
        self._sampled += 1
        return derive_seed(base, self._number, self._sampled)

    def go_on(self, results: Sequence[Any]) -> None:
        """Take the results of `asked`, see `_run_steps`."""
        for step, result in zip(self.asked, results, strict=True):
            if isinstance(step, Retrieve):
                self._spent = add_spent([self._spent, result.spent])
                self._take_hits(step, result.hits)
            elif result is None and not isinstance(step, Note):
                self._stop_reason = StopReason.MAX_TOKENS
            else:
                self._take_call(step, result)
        if self.ended:
            self._steps.close()
        else:
            self._send([result.hits if isinstance(result, Found) else result for result in results])

    def transcript(self) -> Transcript:
        """What was done."""
        turns, problem = tuple(self._turns), "the episode ends without an answer"
        if self._stop_reason is StopReason.ANSWERED:
            action = Action(kind=ActionKind.ANSWER, text=self._answer)
            turns = (*turns, Turn(segment=self._segment, action=action, calls=tuple(self._calls)))
            problem = "" if self._answer else "the answer is empty"
        return Transcript(
            question=self._question,
            turns=turns,
            stop_reason=self._stop_reason,
            format=FormatVerdict(problems=(problem,) if problem else ()),
            spending=self._spent,
        )

    def _send(self, results: Sequence[Any] | None) -> None:
        try:
            self.asked = self._steps.send(results)  # type: ignore[arg-type]
        except StopIteration as stop:
            self._answer, self._stop_reason = stop.value, StopReason.ANSWERED

    def _take_hits(self, step: Retrieve, hits: tuple[Hit, ...] | None) -> None:
        if hits is None:
            self._stop_reason = StopReason.RETRIEVER_UNAVAILABLE
            return
        action = Action(kind=ActionKind.SEARCH, text=step.query)
        calls, self._calls = tuple(self._calls), []
        self._turns.append(Turn(segment="", action=action, hits=hits, observation=passages(hits), calls=calls))

    def _take_call(
        self,
        step: Generate | Mixture | Score | Confidence | Note,
        result: Completion | ScoredText | TokenConfidences | None,
    ) -> None:
        if isinstance(step, Generate | Mixture):
            assert isinstance(result, Completion)
            self._segment = result.text
            prompts = step.prompts if isinstance(step, Mixture) else (step.prompt,)
            call = Call(
                purpose=step.purpose,
                prompt="\n\n".join(prompt.text for prompt in prompts),
                text=result.text,
                prompt_tokens=result.prompt_tokens,
                tokens=result.tokens,
                cost=result.cost,
            )
        elif isinstance(step, Score):
            assert isinstance(result, ScoredText)
            read = result.context_tokens + len(result.tokens)
            call = Call(purpose=step.purpose, prompt=step.context, text=step.text, prompt_tokens=read, cost=result.cost)
        elif isinstance(step, Confidence):
            assert isinstance(result, TokenConfidences)
            read = result.prompt_tokens
            call = Call(purpose=step.purpose, prompt=step.prompt.text, text=step.text, prompt_tokens=read)
        else:
            call = Call(purpose=step.purpose, text=step.text)
        self._calls.append(call)


def _run_steps(setting: Setting, plays: Sequence[_Play]) -> Iterator[_Play]:
    """Run all that the questions in play ask for, each kind as one batch, and hand out the results.

    The result of a `Generate` or `Mixture` whose prompt leaves no room is None.

    Yields:
        Each question in play as soon as it has all its results and has gone on.
    """
    # Read once: a question that has gone on asks for something else already.
    asked = [(play, place, step) for play in plays for place, step in enumerate(play.asked)]
    results: dict[_Play, list[Any]] = {play: [None] * len(play.asked) for play in plays}
    missing = Counter(play for play, _, step in asked if isinstance(step, tuple(_RUNNERS)))
    for play in plays:
        if not missing[play]:
            play.go_on(results[play])
            yield play
    for kind, run in _RUNNERS.items():
        batch = [each for each in asked if isinstance(each[2], kind)]
        if not batch:
            continue
        for index, result in run(setting, [play for play, _, _ in batch], [step for _, _, step in batch]):
            play, place, _ = batch[index]
            results[play][place] = result
            missing[play] -= 1
            if not missing[play]:
                play.go_on(results[play])
                yield play


def _retrieve(setting: Setting, plays: Sequence[_Play], steps: Sequence[Retrieve]) -> Iterator[tuple[int, Found]]:
    env = setting.env
    for top_k in dict.fromkeys(step.top_k or env.top_k for step in steps):
        numbers = [number for number, step in enumerate(steps) if (step.top_k or env.top_k) == top_k]
        found = search_for(env.retriever, [steps[number].query for number in numbers], top_k)
        yield from zip(numbers, found, strict=True)


def _generate(
    setting: Setting, plays: Sequence[_Play], steps: Sequence[Generate]
) -> Iterable[tuple[int, Completion | None]]:
    requests = [
        GenerationRequest(
            prompt=step.prompt,
            sampling=_sampling(setting, step),
            seed=play.seed(setting.seed),
            logprobs=step.logprobs,
        )
        for play, step in zip(plays, steps, strict=True)
    ]
    return generate_each(setting.engine, requests, chat=setting.chat, max_tokens=setting.max_tokens)


def _mix(setting: Setting, plays: Sequence[_Play], steps: Sequence[Mixture]) -> Iterable[tuple[int, Completion | None]]:
    from search_agents.engines.mixture import MixtureEngine, MixtureRequest, generate_mixtures  # it brings torch

    requests = [
        MixtureRequest(
            prompts=step.prompts,
            weights=step.weights,
            sampling=_sampling(setting, step),
            seed=play.seed(setting.seed),
        )
        for play, step in zip(plays, steps, strict=True)
    ]
    engine = cast(MixtureEngine, setting.engine)
    return enumerate(generate_mixtures(engine, requests, chat=setting.chat, max_tokens=setting.max_tokens))


def _sampling(setting: Setting, step: Generate | Mixture) -> SamplingParams:
    return dataclasses.replace(
        setting.sampling,
        stop=step.stop,
        max_tokens=min(step.max_tokens or setting.sampling.max_tokens, setting.sampling.max_tokens),
        temperature=setting.sampling.temperature if step.temperature is None else step.temperature,
    )


def _score(setting: Setting, plays: Sequence[_Play], steps: Sequence[Score]) -> Iterable[tuple[int, ScoredText | None]]:
    return enumerate(setting.engine.score([ScoringRequest(context=step.context, text=step.text) for step in steps]))


def _confide(
    setting: Setting, plays: Sequence[_Play], steps: Sequence[Confidence]
) -> Iterable[tuple[int, TokenConfidences]]:
    engine = cast(TokenEngine, setting.engine)
    return enumerate(token_confidences(engine, [(step.prompt, step.text) for step in steps], chat=setting.chat))


_RUNNERS: dict[type, Callable[[Setting, Sequence[_Play], Any], Iterable[tuple[int, Any]]]] = {
    Retrieve: _retrieve,
    Generate: _generate,
    Mixture: _mix,
    Score: _score,
    Confidence: _confide,
}

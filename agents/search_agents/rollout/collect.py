"""Plays episodes: engine and vector environment in turns, until every episode has ended.

Text meets tokens here and nowhere else. Each text is encoded once, when it enters a
model's context, and each sampled token is kept as it was drawn; the segments that this
leaves behind are the engine's input, exactly.

Tokens are this module's to count: an episode that spends its budget of tokens is ended
here, with its own stop reason, and judged by the environment's reward as the unfinished
response it is. One whose prompt leaves no room to write ends so before it begins. An
episode whose search failed for good comes back as invalid.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict, Unpack

import numpy as np

from search_agents.engines.base import (
    FinishReason,
    SampledSegment,
    SamplingParams,
    TokenEngine,
    check_prompts,
    in_order,
)
from search_agents.rollout.episode import Episode, SegmentKind, TokenSegment
from search_env.episode import Rules
from search_env.metrics import score
from search_env.types import Prompt, StopReason, Transcript, Turn
from search_env.vector import SearchQAVectorEnv

__all__ = [
    "METRICS",
    "Bounds",
    "Task",
    "check_budget",
    "collect",
    "collect_each",
    "cut_short",
    "derive_seed",
    "prompt_segment",
    "sampled_segment",
]


@dataclass(frozen=True, slots=True)
class Task:
    """One episode to play."""

    question: int | str
    """Index or id of the question in the environment's dataset."""
    group: int
    """Number shared by the episodes whose rewards are compared."""
    seed: int
    """Decides what is sampled; in float32 the same tokens whatever else is played beside it, see `TokenEngine.open`."""


class Bounds(TypedDict):
    """What episodes are played within; see `collect_each`."""

    sampling: SamplingParams
    max_tokens: int
    chat: bool
    prefill: NotRequired[str]


def derive_seed(*keys: int) -> int:
    """A seed for the place that the keys name, for example run seed, step and number of the episode.

    Args:
        *keys: Not negative.
    """
    return int(np.random.SeedSequence(keys).generate_state(1, np.uint64)[0])


def collect(
    engine: TokenEngine, env: SearchQAVectorEnv, tasks: Sequence[Task], **bounds: Unpack[Bounds]
) -> list[Episode]:
    """What `collect_each` plays, in the order of the tasks."""
    return in_order(collect_each(engine, env, tasks, **bounds))


def collect_each(
    engine: TokenEngine,
    env: SearchQAVectorEnv,
    tasks: Sequence[Task],
    *,
    sampling: SamplingParams,
    max_tokens: int,
    chat: bool,
    prefill: str = "",
) -> Iterator[tuple[int, Episode]]:
    """Play one episode for each task, as many at a time as the environment has slots.

    Args:
        engine: Samples.
        env: Answers; its stop strings replace those of `sampling`.
        tasks: What to play.
        sampling: Temperature and the most tokens of a segment.
        max_tokens: The most tokens of an episode: prompt, segments and observations.
        chat: Whether the prompt goes through the model's chat template.
        prefill: Text that every response is made to begin with. To the environment it is part of the first segment;
            to the learner it is part of the prompt.

    Yields:
        The index of a task and its episode, as soon as it has ended. One whose prompt leaves no room within
        `max_tokens` is not sampled: it holds as much of the prompt as fits.

    Raises:
        ConfigError: If not even the prompt of an empty question fits into `max_tokens`, or `max_tokens` not into the
            model's context.
        ModelError: If `chat` is asked of a model without a chat template.
    """
    sampling = dataclasses.replace(sampling, stop=env.rules.dialect.stop)
    for start in range(0, len(tasks), env.num_envs):
        wave = _Wave(
            engine, env, tasks[start : start + env.num_envs], max_tokens=max_tokens, chat=chat, prefill=prefill
        )
        for slot, episode in wave.play(sampling):
            yield start + slot, episode


class _Wave:
    """As many episodes as there are slots, from their prompts to their ends."""

    def __init__(
        self,
        engine: TokenEngine,
        env: SearchQAVectorEnv,
        tasks: Sequence[Task],
        *,
        max_tokens: int,
        chat: bool,
        prefill: str,
    ) -> None:
        self._engine, self._env, self._tasks = engine, env, tasks
        idle = env.num_envs - len(tasks)
        questions = [task.question for task in tasks] + [None] * idle
        _, infos = env.reset(options={"question": questions, "reset_mask": np.arange(env.num_envs) < len(tasks)})
        self._segments = [
            [prompt_segment(engine, _prompt(infos, slot, prefill), max_tokens=max_tokens, chat=chat)]
            for slot in range(len(tasks))
        ]
        fitting = [slot for slot, (prompt,) in enumerate(self._segments) if len(prompt.token_ids) < max_tokens]
        if len(fitting) < len(tasks):
            check_budget(engine, env.rules, max_tokens=max_tokens, chat=chat, prefill=prefill)
        self._row = {slot: row for row, slot in enumerate(fitting)}
        if fitting:
            prompts = [self._segments[slot][0].token_ids for slot in fitting]
            self._session = engine.open(prompts, seeds=[tasks[slot].seed for slot in fitting], max_tokens=max_tokens)
        self._unsaid = [prefill] * len(tasks)  # the forced beginning, until the environment has heard it
        self._ended: list[tuple[int, Episode]] = []

    def play(self, sampling: SamplingParams) -> Iterator[tuple[int, Episode]]:
        running = list(self._row)
        for slot in range(len(self._tasks)):
            if slot not in self._row:
                self._cut(slot, self._env.transcripts[slot])
        yield from self._take_ended()
        while running:
            spoken = {}
            sampled = self._session.sample([self._row[slot] for slot in running], sampling)
            for slot, segment in zip(running, sampled, strict=True):
                spoken[slot] = self._unsaid[slot] + segment.text
                self._unsaid[slot] = ""
                self._segments[slot].append(sampled_segment(segment))
                if segment.finish is FinishReason.LENGTH and not self._session.room(self._row[slot]):
                    self._cut(slot, self._env.transcripts[slot], spoken.pop(slot))
            yield from self._take_ended()
            running = self._step(spoken)
            yield from self._take_ended()

    def _take_ended(self) -> list[tuple[int, Episode]]:
        """The slots and episodes that have ended since this was last asked."""
        ended, self._ended = self._ended, []
        return ended

    def _step(self, spoken: dict[int, str]) -> list[int]:
        """Hand the segments to the environment and what it says to the engine; returns the slots that go on."""
        if not spoken:
            return []
        # A slot that was cut is still running for the environment, which hears nothing more from it.
        actions = [spoken.get(slot, "") for slot in range(self._env.num_envs)]
        observations, rewards, terminations, truncations, infos = self._env.step(actions)
        transcripts = self._env.transcripts
        going_on: dict[int, list[int]] = {}
        for slot in spoken:
            if terminations[slot] or truncations[slot]:
                self._end(slot, transcripts[slot], float(rewards[slot]), infos)
                continue
            ids = self._engine.encode_observation(observations[slot])
            if len(ids) < self._session.room(self._row[slot]):
                going_on[slot] = ids
                self._segments[slot].append(TokenSegment(SegmentKind.OBSERVATION, tuple(ids), (), observations[slot]))
            else:
                self._cut(slot, transcripts[slot])
        self._session.extend([self._row[slot] for slot in going_on], list(going_on.values()))
        return list(going_on)

    def _end(self, slot: int, transcript: Transcript, reward: float, infos: dict[str, Any]) -> None:
        """Keep an episode that the environment ended."""
        self._keep(
            slot,
            transcript,
            reward=reward,
            reward_parts={name: float(parts[slot]) for name, parts in _fields(infos["reward_parts"])},
            metrics={name: float(infos[name][slot]) for name in METRICS},
            valid=bool(infos["valid"][slot]),
        )

    def _cut(self, slot: int, transcript: Transcript, unfinished: str = "") -> None:
        """Keep an episode whose tokens are spent."""
        transcript, judgement = cut_short(transcript, self._env.rules, unfinished)
        self._keep(slot, transcript, **judgement)

    def _keep(self, slot: int, transcript: Transcript, **judgement: Any) -> None:
        assert transcript.stop_reason is not None
        episode = Episode(
            question_id=transcript.question.id,
            group=self._tasks[slot].group,
            segments=tuple(self._segments[slot]),
            transcript=transcript,
            stop_reason=transcript.stop_reason,
            **judgement,
        )
        self._ended.append((slot, episode))


METRICS = ("em", "f1", "cem", "cem_contiguous", "searches", "format_ok")
"""What an episode keeps of its last step's info."""


def prompt_segment(engine: TokenEngine, prompt: Prompt, *, max_tokens: int, chat: bool) -> TokenSegment:
    """The prompt of an episode, or as much of it as `max_tokens` holds: then nothing can be written after it."""
    return TokenSegment(
        SegmentKind.PROMPT, tuple(engine.encode_prompt(prompt, chat=chat)[:max_tokens]), (), prompt.text
    )


def check_budget(engine: TokenEngine, rules: Rules, *, max_tokens: int, chat: bool, prefill: str) -> None:
    """Tell a question that is too long from a budget that is too small for any.

    Raises:
        ConfigError: If `max_tokens` leaves no room after the prompt of an empty question, or exceeds the context.
    """
    empty = rules.dialect.prompt("", rules.style)
    ids = engine.encode_prompt(dataclasses.replace(empty, prefill=empty.prefill + prefill), chat=chat)
    check_prompts([ids], max_tokens=max_tokens, max_context=engine.max_context)


def cut_short(transcript: Transcript, rules: Rules, unfinished: str = "") -> tuple[Transcript, dict[str, Any]]:
    """End an episode whose tokens are spent, judged as the unfinished response it is.

    Args:
        transcript: The episode so far.
        rules: What it is played by.
        unfinished: The segment that it was writing.

    Returns:
        The finished transcript, and reward, reward parts, metrics and validity of the episode.
    """
    turns = transcript.turns
    if unfinished:
        turns = (*turns, Turn(segment=unfinished, action=rules.dialect.parse(unfinished)))
    verdict = rules.dialect.judge_format([turn.segment for turn in turns])
    transcript = dataclasses.replace(transcript, turns=turns, stop_reason=StopReason.MAX_TOKENS, format=verdict)
    result = rules.reward(transcript)
    metrics = score(transcript.answer, transcript.question.answers)
    metrics |= {"searches": float(len(transcript.queries)), "format_ok": float(verdict.ok)}
    return transcript, {"reward": result.total, "reward_parts": result.parts, "metrics": metrics, "valid": True}


def sampled_segment(segment: SampledSegment) -> TokenSegment:
    """What the model wrote, as a part of an episode."""
    return TokenSegment(SegmentKind.SAMPLED, tuple(segment.token_ids), tuple(segment.logprobs), segment.text)


def _prompt(infos: dict[str, Any], slot: int, prefill: str) -> Prompt:
    return Prompt(
        user=infos["prompt_user"][slot],
        system=infos["prompt_system"][slot],
        prefill=infos["prompt_prefill"][slot] + prefill,
    )


def _fields(infos: dict[str, Any]) -> list[tuple[str, Any]]:
    """The entries of a vector info, without the masks that Gymnasium puts beside them."""
    return [(name, values) for name, values in infos.items() if not name.startswith("_")]

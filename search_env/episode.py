"""One episode of search question answering: segments in; observations, rewards and an end out.

`SearchQAEnv` and `SearchQAVectorEnv` are thin shells around `EpisodeState`, so one
episode means the same in both. A turn has two halves: `EpisodeState.act` reads the
segment and changes nothing, `EpisodeState.resolve` takes the documents and commits. In
between, the retriever runs, for one episode or for a batch; if it fails, the state is
what it was, and the same segment may be tried again.

Every step's info has the same keys and types, floats and strings only, because
Gymnasium's vector info keeps the type that comes first. It never holds a gold answer.
The one key that may be missing is ``spending``: it is there once a search of the web has
spent anything.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from search_env.dialects.base import Dialect, PromptStyle
from search_env.errors import ConfigError
from search_env.metrics import score
from search_env.retrieval.metering import Spent, add_spent
from search_env.rewards import Reward
from search_env.types import (
    Action,
    ActionKind,
    FormatVerdict,
    Hit,
    Prompt,
    Question,
    StopReason,
    Transcript,
    Turn,
    make_turn,
)

__all__ = ["Budget", "EpisodeState", "Rules", "Step", "check_count"]

# Python 3.11 takes longer to look a member up than to compare it, and a step compares several.
_SEARCH, _ANSWER, _MALFORMED = ActionKind
_ANSWERED, _UNAVAILABLE, _MAX_CHARS = StopReason.ANSWERED, StopReason.RETRIEVER_UNAVAILABLE, StopReason.MAX_CHARS
_TERMINAL = (_ANSWERED, StopReason.MALFORMED)
_UNJUDGED: Mapping[str, float] = {"format_ok": 0.0, **score(None, ())}


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What an episode may spend; the prompt is free.

    Raises:
        ConfigError: If a number is too small or no whole number.
    """

    max_searches: int = 8
    """Searches that are run. Asking for one more truncates the episode; 0 makes it closed-book."""
    max_turns: int = 12
    """Segments. An episode that has not ended by its last one is truncated; that segment's search is not run."""
    max_chars: int = 40_000
    """Characters of segments and observations together. A segment or documents beyond it do not count."""

    def __post_init__(self) -> None:
        for name, least in (("max_searches", 0), ("max_turns", 1), ("max_chars", 1)):
            check_count(name, getattr(self, name), least)


def check_count(name: str, value: Any, least: int) -> None:
    """Make sure that a setting is a whole number.

    Raises:
        ConfigError: If it is not, or below ``least``.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigError(f"{name} must be a whole number of at least {least}, got {value!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Everything that defines an episode except its question and its corpus."""

    dialect: Dialect
    style: PromptStyle
    reward: Reward
    budget: Budget


class Step(NamedTuple):
    """What Gymnasium's ``step`` returns."""

    observation: str
    """Exactly what the model reads next; empty at the end of the episode."""
    reward: float
    """0.0 until the episode ends, then the reward of the whole episode."""
    terminated: bool
    """The agent answered, or the dialect ends the episode at a malformed segment."""
    truncated: bool
    """A budget is spent, or the episode is invalid."""
    info: dict[str, Any]


_Pending = tuple[str, Action, StopReason | None]
"""A segment that is read and not yet committed, and why the episode ends there whatever the documents are, if it does.
"""


class EpisodeState:
    """A running episode.

    Args:
        question: The question asked.
        rules: What the episode is played by, to its end.
    """

    def __init__(self, question: Question, rules: Rules) -> None:
        self.question = question
        self.prompt: Prompt = rules.dialect.prompt(question.text, rules.style)
        self.stop_reason: StopReason | None = None
        self._rules = rules
        self._turns: list[Turn] = []
        self._chars = 0
        self._searches = 0
        self._spent: Spent = {}
        self._format = FormatVerdict()
        self._scores = _UNJUDGED
        self.reward_parts: Mapping[str, float] = {part.name: 0.0 for part in rules.reward.parts}
        self._pending: _Pending | None = None
        self.query: str | None = None
        """The search that must run before `resolve`, or None if the segment needs none."""

    @property
    def ended(self) -> bool:
        """Whether no further segment is taken."""
        return self.stop_reason is not None

    @property
    def transcript(self) -> Transcript:
        """The episode so far."""
        return Transcript(
            question=self.question,
            turns=tuple(self._turns),
            stop_reason=self.stop_reason,
            format=self._format,
            spending=self._spent,
        )

    def opening_info(self) -> dict[str, Any]:
        """The info of a reset: what a runner needs to know about the episode, never the answer."""
        return {
            "question_id": self.question.id,
            "question": self.question.text,
            "kind": self.question.kind,
            "hops": float(self.question.hops or 0),
            "stop": list(self._rules.dialect.stop),
            "prompt_system": self.prompt.system,
            "prompt_user": self.prompt.user,
            "prompt_prefill": self.prompt.prefill,
        }

    def act(self, segment: str) -> Action:
        """Read a segment; nothing changes until `resolve`, so another segment may be read instead.

        Raises:
            ConfigError: If the segment is not text.
        """
        if not isinstance(segment, str):
            raise ConfigError(f"an action is one segment of the model's text (str), got {type(segment).__name__}")
        segment = str(segment)  # a NumPy string becomes a plain one
        max_chars = self._rules.budget.max_chars
        if self._chars + len(segment) > max_chars:
            action = Action(kind=_MALFORMED, problem=f"it exceeds the episode's budget of {max_chars} characters")
            stop_reason: StopReason | None = _MAX_CHARS
        else:
            action = self._rules.dialect.parse(segment)
            stop_reason = self._stop_reason_at(action)
        self._pending = segment, action, stop_reason
        self.query = action.text if stop_reason is None and action.kind is _SEARCH else None
        return action

    def spend(self, spent: Spent) -> None:
        """Count what a search has spent, whether or not it found anything."""
        if spent:
            self._spent = add_spent([self._spent, spent])

    def resolve(self, hits: Sequence[Hit] = ()) -> Step:
        """Commit the segment.

        Args:
            hits: What `query` found, best first; nothing if there was no query.

        Returns:
            The step; `info` says what its info holds.
        """
        return self._step(self.advance(hits))

    def invalidate(self) -> Step:
        """Commit the segment as the end of an invalid episode: its search failed for good, so nothing is judged."""
        return self._step(self.advance(None))

    def advance(self, hits: Sequence[Hit] | None) -> str:
        """Commit the segment as `resolve` does, or as `invalidate` without hits, and tell the observation only."""
        assert self._pending is not None, "act() comes before resolve() and invalidate()"
        segment, action, stop_reason = self._pending
        self._pending = self.query = None
        observation = ""
        if hits is None:
            stop_reason = _UNAVAILABLE
        elif stop_reason is None:
            observation = self._observation(action, hits)
        chars = self._chars + len(segment) + len(observation)
        if hits is not None and chars > self._rules.budget.max_chars:
            chars -= len(observation)
            observation, stop_reason = "", _MAX_CHARS
        self._chars = chars
        self._turns.append(make_turn(segment, action, tuple(hits) if hits and observation else (), observation))
        if observation and action.kind is _SEARCH:
            self._searches += 1
        self.stop_reason = stop_reason
        if stop_reason is not None:
            self._judge()
        return observation

    def info(self) -> dict[str, Any]:
        """What a step tells beside the observation, in the same keys and types at every step.

        ``action``, ``stop_reason`` (empty while the episode runs), ``searches``, ``valid``, and, all 0.0 while it runs,
        ``format_ok``, the metrics ``em``, ``f1``, ``cem`` and ``cem_contiguous`` and ``reward_parts``. If the episode
        has searched the web, ``spending`` holds ``calls``, ``cached``, ``pages`` and ``cost`` so far, by search engine.
        """
        info: dict[str, Any] = {
            "action": str(self._turns[-1].action.kind),
            "stop_reason": str(self.stop_reason or ""),
            "searches": float(self._searches),
            "valid": float(self.stop_reason is not _UNAVAILABLE),
            **self._scores,
            "reward_parts": dict(self.reward_parts),
        }
        if self._spent:
            info["spending"] = {
                provider: {name: float(amount) for name, amount in dataclasses.asdict(spending).items()}
                for provider, spending in self._spent.items()
            }
        return info

    @property
    def reward(self) -> float:
        """The reward of the whole episode; 0.0 while it runs."""
        return float(sum(self.reward_parts.values()))

    @property
    def terminated(self) -> bool:
        """Whether it ended by an answer or a malformed segment; if it ended otherwise, it was truncated."""
        return self.stop_reason in _TERMINAL

    @property
    def likeness(self) -> Hashable:
        """Episodes that have the same one have equal infos: those that run by the same rules mostly do."""
        if self.stop_reason is not None or self._spent:
            return id(self)
        return id(self._rules), self._turns[-1].action.kind, self._searches

    def _stop_reason_at(self, action: Action) -> StopReason | None:
        budget = self._rules.budget
        if action.kind is _ANSWER:
            return _ANSWERED
        if action.kind is _MALFORMED and self._rules.dialect.render_notice(action) is None:
            return StopReason.MALFORMED
        if action.kind is _SEARCH and self._searches >= budget.max_searches:
            return StopReason.MAX_SEARCHES
        return StopReason.MAX_TURNS if len(self._turns) + 1 >= budget.max_turns else None

    def _observation(self, action: Action, hits: Sequence[Hit]) -> str:
        if action.kind is _SEARCH:
            return self._rules.dialect.render_documents(hits)
        return self._rules.dialect.render_notice(action) or ""

    def _judge(self) -> None:
        segments, actions = [turn.segment for turn in self._turns], [turn.action for turn in self._turns]
        self._format = self._rules.dialect.judge_format(segments, actions)
        if self.stop_reason is not _UNAVAILABLE:
            transcript = self.transcript
            self._scores = {"format_ok": float(self._format.ok), **score(transcript.answer, self.question.answers)}
            self.reward_parts = self._rules.reward(transcript).parts

    def _step(self, observation: str) -> Step:
        truncated = self.ended and not self.terminated
        return Step(observation, self.reward, self.terminated, truncated, self.info())

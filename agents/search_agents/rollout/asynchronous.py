"""Plays episodes each in its own time: one that waits for a search holds up nobody.

The engine steps as long as any episode is writing. Segments that end with a step are
read at once; their searches run in threads, those that are waiting together in one
batch, and an episode goes on as soon as its own documents are there. A slot that an
episode leaves is taken by the next.

What an episode reads and writes does not depend on when the others end, up to what the
engine makes of rows beside one another, so these are the episodes of
`search_agents.rollout.collect`: same prompts, rules, seeds, masks and stop reasons.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import deque
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from typing import Any, NamedTuple, cast

from search_agents.engines.base import (
    AsynchronousEngine,
    AsynchronousSession,
    Capability,
    FinishReason,
    SampledSegment,
    SamplingParams,
    TokenEngine,
)
from search_agents.rollout.collect import (
    METRICS,
    Task,
    check_budget,
    collect,
    cut_short,
    prompt_segment,
    sampled_segment,
)
from search_agents.rollout.episode import Episode, SegmentKind, TokenSegment
from search_env.episode import EpisodeState, Step
from search_env.errors import RetrieverUnavailable
from search_env.retrieval.metering import Spent, metered, shares
from search_env.types import Hit, Transcript
from search_env.vector import SearchQAVectorEnv

__all__ = ["collect_async", "play"]

_LOG = logging.getLogger(__name__)

_BATCHES = 4
"""Batches of searches at the same time; queries that come up while all of them run wait, and are one batch then."""


class _Found(NamedTuple):
    """What came of a search."""

    hits: tuple[Hit, ...] | None
    """The documents; None if the search failed for good."""
    spent: Spent


_NOTHING = _Found((), {})


def play(
    engine: TokenEngine,
    env: SearchQAVectorEnv,
    tasks: Sequence[Task],
    *,
    sampling: SamplingParams,
    max_tokens: int,
    chat: bool,
    prefill: str = "",
) -> list[Episode]:
    """Play one episode for each task, each in its own time if the engine can; see `collect`."""
    settings: dict[str, Any] = {"sampling": sampling, "max_tokens": max_tokens, "chat": chat, "prefill": prefill}
    if Capability.ASYNCHRONOUS in engine.capabilities:
        return collect_async(cast(AsynchronousEngine, engine), env, tasks, **settings)
    return collect(engine, env, tasks, **settings)


def collect_async(
    engine: AsynchronousEngine,
    env: SearchQAVectorEnv,
    tasks: Sequence[Task],
    *,
    sampling: SamplingParams,
    max_tokens: int,
    chat: bool,
    prefill: str = "",
) -> list[Episode]:
    """Play one episode for each task, at most as many at a time as the environment has slots.

    Args:
        engine: Samples; only this thread asks it.
        env: Gives questions, rules and the retriever, which other threads ask. Its own episodes are left alone.
        tasks: What to play.
        sampling: Temperature and the most tokens of a segment.
        max_tokens: The most tokens of an episode: prompt, segments and observations.
        chat: Whether the prompt goes through the model's chat template.
        prefill: Text that every response is made to begin with; see `collect`.

    Returns:
        The episodes, in the order of the tasks; see `collect` for one whose prompt is too long.

    Raises:
        ConfigError: If not even the prompt of an empty question fits into `max_tokens`, or `max_tokens` not into the
            model's context.
        ModelError: If `chat` is asked of a model without a chat template.
    """
    sampling = dataclasses.replace(sampling, stop=env.rules.dialect.stop)
    runs = [_Run(engine, env, task, max_tokens=max_tokens, chat=chat, prefill=prefill) for task in tasks]
    fitting = [run for run in runs if run.episode is None]
    if len(fitting) < len(runs):
        check_budget(engine, env.rules, max_tokens=max_tokens, chat=chat, prefill=prefill)
    if fitting:
        prompts, seeds = [run.segments[0].token_ids for run in fitting], [run.task.seed for run in fitting]
        session = engine.open(prompts, seeds=seeds, max_tokens=max_tokens)
        with closing(session), closing(_Searches(env)) as searches:
            _play_all(fitting, session, searches, sampling, slots=env.num_envs)
    return [run.episode for run in runs if run.episode is not None]


def _play_all(
    runs: Sequence[_Run],
    session: AsynchronousSession,
    searches: _Searches,
    sampling: SamplingParams,
    *,
    slots: int,
) -> None:
    to_come = deque(range(len(runs)))
    writing: set[int] = set()

    def write(row: int) -> None:
        session.begin(row, sampling)
        writing.add(row)

    def read(row: int, found: _Found) -> None:
        ids = runs[row].read(found, session.room(row))
        if ids is not None:
            session.extend([row], [ids])
            write(row)

    while to_come or writing or searches:
        while to_come and len(writing) + len(searches) < slots:
            write(to_come.popleft())
        for row, segment in session.step() if writing else ():
            writing.remove(row)
            runs[row].hear(segment, session.room(row))
            query = runs[row].query
            if query is not None:
                searches.ask(row, query)
            elif runs[row].episode is None:
                read(row, _NOTHING)
        more_to_write = writing or (to_come and len(searches) < slots)
        for row, found in searches.answers(wait_for_one=not more_to_write):
            read(row, found)


class _Run:
    """An episode from its prompt to its end, which is at once if the prompt leaves no room to write.

    Attributes:
        task: What it was to play.
        segments: What its model has read and written.
        episode: The whole, once it has ended.
    """

    def __init__(
        self,
        engine: AsynchronousEngine,
        env: SearchQAVectorEnv,
        task: Task,
        *,
        max_tokens: int,
        chat: bool,
        prefill: str,
    ) -> None:
        self.task = task
        self._engine, self._rules = engine, env.rules
        self._state = EpisodeState(env.dataset.question(task.question), env.rules)
        prompt = dataclasses.replace(self._state.prompt, prefill=self._state.prompt.prefill + prefill)
        self.segments = [prompt_segment(engine, prompt, max_tokens=max_tokens, chat=chat)]
        self.episode: Episode | None = None
        self._unsaid = prefill  # the forced beginning, until the environment has heard it
        if len(self.segments[0].token_ids) == max_tokens:
            self._cut()

    @property
    def query(self) -> str | None:
        """What must be searched before it can go on."""
        return self._state.query if self.episode is None else None

    def hear(self, segment: SampledSegment, room: int) -> None:
        """Take what the model wrote.

        Args:
            segment: The segment.
            room: Number of tokens that the row can still take.
        """
        spoken, self._unsaid = self._unsaid + segment.text, ""
        self.segments.append(sampled_segment(segment))
        if segment.finish is FinishReason.LENGTH and not room:
            self._cut(spoken)
        else:
            self._state.act(spoken)

    def read(self, found: _Found, room: int) -> list[int] | None:
        """Take what was found.

        Args:
            found: Nothing if there was no search.
            room: Number of tokens that the row can still take.

        Returns:
            What the model reads next, or None if the episode has ended.
        """
        self._state.spend(found.spent)
        step = self._state.invalidate() if found.hits is None else self._state.resolve(found.hits)
        if step.terminated or step.truncated:
            self._end(step)
            return None
        ids = self._engine.encode_observation(step.observation)
        if len(ids) >= room:
            self._cut()
            return None
        self.segments.append(TokenSegment(SegmentKind.OBSERVATION, tuple(ids), (), step.observation))
        return ids

    def _end(self, step: Step) -> None:
        """Keep an episode that the environment's rules ended."""
        self._keep(
            self._state.transcript,
            reward=step.reward,
            reward_parts=step.info["reward_parts"],
            metrics={name: step.info[name] for name in METRICS},
            valid=bool(step.info["valid"]),
        )

    def _cut(self, unfinished: str = "") -> None:
        """Keep an episode whose tokens are spent."""
        transcript, judgement = cut_short(self._state.transcript, self._rules, unfinished)
        self._keep(transcript, **judgement)

    def _keep(self, transcript: Transcript, **judgement: Any) -> None:
        assert transcript.stop_reason is not None
        self.episode = Episode(
            question_id=transcript.question.id,
            group=self.task.group,
            segments=tuple(self.segments),
            transcript=transcript,
            stop_reason=transcript.stop_reason,
            **judgement,
        )


class _Searches:
    """The searches under way, in threads.

    Args:
        env: Its retriever is asked.
    """

    def __init__(self, env: SearchQAVectorEnv) -> None:
        self._retriever, self._top_k = env.retriever, env.top_k
        self._pool = ThreadPoolExecutor(_BATCHES, thread_name_prefix="search")
        self._waiting: dict[int, str] = {}
        self._running: dict[Future[list[_Found]], list[int]] = {}

    def __len__(self) -> int:
        return len(self._waiting) + sum(map(len, self._running.values()))

    def ask(self, row: int, query: str) -> None:
        """Search for a row; the search begins with the next call of `answers`."""
        self._waiting[row] = query

    def answers(self, *, wait_for_one: bool) -> list[tuple[int, _Found]]:
        """Begin the searches that wait, if there is a thread for them, and tell what has been found since.

        Args:
            wait_for_one: Whether to wait until something is found, if anything is searched.
        """
        if self._waiting and len(self._running) < _BATCHES:
            rows, queries = list(self._waiting), list(self._waiting.values())
            self._running[self._pool.submit(self._search, queries)] = rows
            self._waiting.clear()
        if wait_for_one and self._running:
            wait(self._running, return_when=FIRST_COMPLETED)
        done = [future for future in self._running if future.done()]
        return [pair for future in done for pair in zip(self._running.pop(future), future.result(), strict=True)]

    def close(self) -> None:
        """Wait for the searches under way, whose answers nobody takes any more, and end the threads."""
        self._pool.shutdown(cancel_futures=True)

    def _search(self, queries: Sequence[str]) -> list[_Found]:
        hits: Sequence[tuple[Hit, ...] | None]
        with metered() as meter:
            try:
                hits = self._retriever.search(queries, self._top_k)
            except RetrieverUnavailable as error:
                _LOG.warning("%d episodes are invalid, their search failed for good: %s", len(queries), error)
                hits = [None] * len(queries)
        return [_Found(*each) for each in zip(hits, shares(queries, meter), strict=True)]

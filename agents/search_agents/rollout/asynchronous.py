"""Plays episodes each in its own time: one that waits for a search holds up nobody.

The engine steps as long as any episode is writing. Segments that end with a step are
read at once; their searches run in threads, those that are waiting together in one
batch, and an episode goes on as soon as its own documents are there. A slot that an
episode leaves is taken by the next.

What an episode reads and writes does not depend on when the others end, up to what the
engine makes of rows beside one another (`TokenEngine.open`: in float32 the same tokens, in
bfloat16 perhaps not), so these are the episodes of `search_agents.rollout.collect`: same
prompts, rules, seeds, masks and stop reasons.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import closing
from typing import Any, Unpack, cast

from search_agents.engines.base import (
    AsynchronousEngine,
    AsynchronousSession,
    Capability,
    FinishReason,
    SampledSegment,
    SamplingParams,
    TokenEngine,
    in_order,
)
from search_agents.rollout.collect import (
    METRICS,
    Bounds,
    Task,
    check_budget,
    collect_each,
    cut_short,
    prompt_segment,
    sampled_segment,
)
from search_agents.rollout.episode import Episode, SegmentKind, TokenSegment
from search_agents.rollout.found import Found, search_for
from search_env.episode import EpisodeState, Step
from search_env.types import Transcript
from search_env.vector import SearchQAVectorEnv

__all__ = ["collect_async", "collect_async_each", "play", "play_each"]

_BATCHES = 4
"""Batches of searches at the same time; queries that come up while all of them run wait, and are one batch then."""


_NOTHING = Found((), {})


def play(engine: TokenEngine, env: SearchQAVectorEnv, tasks: Sequence[Task], **bounds: Unpack[Bounds]) -> list[Episode]:
    """Play one episode for each task, each in its own time if that is best for the engine; see `collect`."""
    return in_order(play_each(engine, env, tasks, **bounds))


def play_each(
    engine: TokenEngine, env: SearchQAVectorEnv, tasks: Sequence[Task], **bounds: Unpack[Bounds]
) -> Iterator[tuple[int, Episode]]:
    """What `play` plays, each episode as soon as it has ended; see `collect_each`."""
    if Capability.ASYNCHRONOUS in engine.capabilities and cast(AsynchronousEngine, engine).continuous:
        return collect_async_each(cast(AsynchronousEngine, engine), env, tasks, **bounds)
    return collect_each(engine, env, tasks, **bounds)


def collect_async(
    engine: AsynchronousEngine, env: SearchQAVectorEnv, tasks: Sequence[Task], **bounds: Unpack[Bounds]
) -> list[Episode]:
    """What `collect_async_each` plays, in the order of the tasks."""
    return in_order(collect_async_each(engine, env, tasks, **bounds))


def collect_async_each(
    engine: AsynchronousEngine,
    env: SearchQAVectorEnv,
    tasks: Sequence[Task],
    *,
    sampling: SamplingParams,
    max_tokens: int,
    chat: bool,
    prefill: str = "",
) -> Iterator[tuple[int, Episode]]:
    """Play one episode for each task, at most as many at a time as the environment has slots.

    Args:
        engine: Samples; only this thread asks it.
        env: Gives questions, rules and the retriever, which other threads ask. Its own episodes are left alone.
        tasks: What to play.
        sampling: Temperature and the most tokens of a segment.
        max_tokens: The most tokens of an episode: prompt, segments and observations.
        chat: Whether the prompt goes through the model's chat template.
        prefill: Text that every response is made to begin with; see `collect_each`.

    Yields:
        The index of a task and its episode, as soon as it has ended; see `collect_each` for one whose prompt is too
        long.

    Raises:
        ConfigError: If not even the prompt of an empty question fits into `max_tokens`, or `max_tokens` not into the
            model's context.
        ModelError: If `chat` is asked of a model without a chat template.
    """
    sampling = dataclasses.replace(sampling, stop=env.rules.dialect.stop)
    runs = [_Run(engine, env, task, max_tokens=max_tokens, chat=chat, prefill=prefill) for task in tasks]
    fitting = [index for index, run in enumerate(runs) if run.episode is None]
    if len(fitting) < len(runs):
        check_budget(engine, env.rules, max_tokens=max_tokens, chat=chat, prefill=prefill)
    yield from ((index, run.episode) for index, run in enumerate(runs) if run.episode is not None)
    if fitting:
        prompts, seeds = [runs[index].segments[0].token_ids for index in fitting], [tasks[i].seed for i in fitting]
        session = engine.open(prompts, seeds=seeds, max_tokens=max_tokens)
        rows = [runs[index] for index in fitting]
        with closing(session), closing(_Searches(env)) as searches:
            for row, episode in _play_all(rows, session, searches, sampling, slots=env.num_envs):
                yield fitting[row], episode


def _play_all(
    runs: Sequence[_Run],
    session: AsynchronousSession,
    searches: _Searches,
    sampling: SamplingParams,
    *,
    slots: int,
) -> Iterator[tuple[int, Episode]]:
    to_come = deque(range(len(runs)))
    writing: set[int] = set()

    def write(row: int) -> None:
        session.begin(row, sampling)
        writing.add(row)

    def read(row: int, found: Found) -> None:
        ids = runs[row].read(found, session.room(row))
        if ids is not None:
            session.extend([row], [ids])
            write(row)

    def ended(row: int) -> Iterator[tuple[int, Episode]]:
        if (episode := runs[row].episode) is not None:
            session.release(row)
            yield row, episode

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
            yield from ended(row)
        more_to_write = writing or (to_come and len(searches) < slots)
        for row, found in searches.answers(wait_for_one=not more_to_write):
            read(row, found)
            yield from ended(row)


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

    def read(self, found: Found, room: int) -> list[int] | None:
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
        self._running: dict[Future[list[Found]], list[int]] = {}

    def __len__(self) -> int:
        return len(self._waiting) + sum(map(len, self._running.values()))

    def ask(self, row: int, query: str) -> None:
        """Search for a row; the search begins with the next call of `answers`."""
        self._waiting[row] = query

    def answers(self, *, wait_for_one: bool) -> list[tuple[int, Found]]:
        """Begin the searches that wait, if there is a thread for them, and tell what has been found since.

        Args:
            wait_for_one: Whether to wait until something is found, if anything is searched.
        """
        if self._waiting and len(self._running) < _BATCHES:
            rows, queries = list(self._waiting), list(self._waiting.values())
            self._running[self._pool.submit(search_for, self._retriever, queries, self._top_k)] = rows
            self._waiting.clear()
        if wait_for_one and self._running:
            wait(self._running, return_when=FIRST_COMPLETED)
        done = [future for future in self._running if future.done()]
        return [pair for future in done for pair in zip(self._running.pop(future), future.result(), strict=True)]

    def close(self) -> None:
        """Wait for the searches under way, whose answers nobody takes any more, and end the threads."""
        self._pool.shutdown(cancel_futures=True)

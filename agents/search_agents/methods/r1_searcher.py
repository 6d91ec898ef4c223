"""The trained policy: the model searches as it thinks, for as long as it wants to.

With its first query forced, an untrained model shows how much of the trained one's
gain is the mere habit of searching.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence

from search_agents.engines.base import Capability
from search_agents.methods.base import Setting, batches, begin_query, require_sessions
from search_agents.methods.playing import PlayingMethod
from search_agents.methods.segments import begun, say_in_text
from search_agents.rollout.asynchronous import play_each
from search_agents.rollout.collect import Task, derive_seed
from search_agents.rollout.episode import Episode, SegmentKind
from search_env.types import Call, Prompt, Question, Transcript

__all__ = ["ForcedQuery", "R1Searcher"]


class R1Searcher:
    """The model in the environment.

    With an engine that opens sessions, what was computed for an episode is kept from turn to turn, and each text is
    encoded once. Any other engine is given the whole response so far at every turn.

    Args:
        setting: What the comparison holds fixed.
    """

    name = "r1-searcher"
    needs = frozenset({Capability.GENERATE})

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._prefill = self._beginning()

    def run(self, questions: Sequence[Question], *, skip: Collection[int] = ()) -> Iterator[Transcript]:
        """Answer questions; see `Method.run`."""
        setting = self._setting
        if Capability.SESSIONS not in setting.engine.capabilities:
            yield from _InText(setting, self._prefill).run(questions, skip=skip)
            return
        engine = require_sessions(setting.engine, f"the method {self.name!r}")
        for numbers, batch in batches(questions, setting.env.num_envs, skip):
            episodes = play_each(
                engine,
                setting.env,
                [
                    Task(question.id, number, derive_seed(setting.seed, number))
                    for number, question in zip(numbers, batch, strict=True)
                ],
                sampling=setting.sampling,
                max_tokens=setting.max_tokens,
                chat=setting.chat,
                prefill=self._prefill,
            )
            yield from (_with_calls(episode) for _, episode in episodes)

    def _beginning(self) -> str:
        """Text that every response is made to begin with."""
        return ""


class ForcedQuery(R1Searcher):
    """The model in the environment, every response made to begin with the opening query tag."""

    name = "r1-searcher-forced-query"

    def _beginning(self) -> str:
        rules = self._setting.env.rules
        return begin_query(rules.dialect, rules.dialect.prompt("", rules.style).prefill)


class _InText(PlayingMethod):
    """The model in the environment, through an engine of texts.

    Args:
        setting: What the comparison holds fixed.
        beginning: Text that every response is made to begin with; to the environment it is part of the first segment.
    """

    def __init__(self, setting: Setting, beginning: str) -> None:
        super().__init__(setting.env)
        self._setting, self._beginning = setting, beginning
        self._calls: dict[str, list[Call]] = {}

    def act(self, running: Mapping[int, Transcript]) -> Iterator[tuple[int, str | None]]:
        """Say the next segments; see `PlayingMethod.act`."""
        playing = list(running.items())
        segments = say_in_text(
            self._setting,
            [self._prompt(transcript) for _, transcript in playing],
            keys=[(number, len(transcript.turns)) for number, transcript in playing],
            stop=self._setting.env.rules.dialect.stop,
        )
        for index, segment in segments:
            number, transcript = playing[index]
            if segment is None:
                yield number, None
                continue
            self._calls.setdefault(transcript.question.id, []).append(segment.call)
            yield number, segment.text if transcript.turns else self._beginning + segment.text

    def run(self, questions: Sequence[Question], *, skip: Collection[int] = ()) -> Iterator[Transcript]:
        """Answer questions; see `Method.run`."""
        for transcript in super().run(questions, skip=skip):
            yield _attach(transcript, self._calls.pop(transcript.question.id, []))

    def _prompt(self, transcript: Transcript) -> Prompt:
        rules = self._setting.env.rules
        prompt = rules.dialect.prompt(transcript.question.text, rules.style)
        said = "".join(turn.segment + turn.observation for turn in transcript.turns) or self._beginning
        return begun(prompt, said)


def _with_calls(episode: Episode) -> Transcript:
    """The transcript with the tokens that each turn took; what was read and written is the transcript itself."""
    calls, read = [], 0
    for segment in episode.segments:
        if segment.kind is SegmentKind.SAMPLED:
            ids, logprobs = segment.token_ids, segment.stored_logprobs
            call = Call(purpose="segment", prompt_tokens=read, tokens=len(ids), token_ids=ids, logprobs=logprobs)
            calls.append(call)
        read = 0 if segment.kind is SegmentKind.SAMPLED else read + len(segment.token_ids)
    return _attach(episode.transcript, calls)


def _attach(transcript: Transcript, calls: Sequence[Call]) -> Transcript:
    """Give each turn its call; one that came to nothing, for the retriever failed, has no turn."""
    turns = [dataclasses.replace(turn, calls=(call,)) for turn, call in zip(transcript.turns, calls, strict=False)]
    return dataclasses.replace(transcript, turns=tuple(turns))

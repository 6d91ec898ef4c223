"""The trained policy: the model searches as it thinks, for as long as it wants to.

With its first query forced, an untrained model shows how much of the trained one's
gain is the mere habit of searching.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence

from search_agents.engines.base import Capability, GenerationRequest
from search_agents.methods.base import Setting, batches, begin_query, require_sessions
from search_agents.methods.playing import PlayingMethod
from search_agents.rollout.asynchronous import play
from search_agents.rollout.collect import Task, derive_seed
from search_agents.rollout.episode import Episode, SegmentKind
from search_env.types import Call, Question, Transcript

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
            episodes = play(
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
            yield from map(_with_calls, episodes)

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

    def act(self, running: Mapping[int, Transcript]) -> list[str | None]:
        """Say the next segments; see `PlayingMethod.act`."""
        setting = self._setting
        requests = [self._request(number, transcript) for number, transcript in running.items()]
        completions = setting.engine.generate(requests, chat=setting.chat, max_tokens=setting.max_tokens)
        said: list[str | None] = []
        for transcript, completion in zip(running.values(), completions, strict=True):
            if completion is None:
                said.append(None)
                continue
            told = {key: getattr(completion, key) for key in ("prompt_tokens", "tokens", "cost")}
            call = Call(purpose="segment", **told)
            self._calls.setdefault(transcript.question.id, []).append(call)
            said.append(completion.text if transcript.turns else self._beginning + completion.text)
        return said

    def run(self, questions: Sequence[Question], *, skip: Collection[int] = ()) -> Iterator[Transcript]:
        """Answer questions; see `Method.run`."""
        for transcript in super().run(questions, skip=skip):
            yield _attach(transcript, self._calls.pop(transcript.question.id, []))

    def _request(self, number: int, transcript: Transcript) -> GenerationRequest:
        setting, rules = self._setting, self._setting.env.rules
        prompt = rules.dialect.prompt(transcript.question.text, rules.style)
        said = "".join(turn.segment + turn.observation for turn in transcript.turns) or self._beginning
        return GenerationRequest(
            prompt=dataclasses.replace(prompt, prefill=prompt.prefill + said),
            sampling=dataclasses.replace(setting.sampling, stop=rules.dialect.stop),
            seed=derive_seed(setting.seed, number, len(transcript.turns)),
        )


def _with_calls(episode: Episode) -> Transcript:
    """The transcript with the tokens that each turn took; what was read and written is the transcript itself."""
    calls, read = [], 0
    for segment in episode.segments:
        if segment.kind is SegmentKind.SAMPLED:
            calls.append(Call(purpose="segment", prompt_tokens=read, tokens=len(segment.token_ids)))
        read = 0 if segment.kind is SegmentKind.SAMPLED else read + len(segment.token_ids)
    return _attach(episode.transcript, calls)


def _attach(transcript: Transcript, calls: Sequence[Call]) -> Transcript:
    """Give each turn its call; one that came to nothing, for the retriever failed, has no turn."""
    turns = [dataclasses.replace(turn, calls=(call,)) for turn, call in zip(transcript.turns, calls, strict=False)]
    return dataclasses.replace(transcript, turns=tuple(turns))

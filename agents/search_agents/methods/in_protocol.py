"""The baselines for a model that was trained on a protocol: prompted in it, as it knows no other way to answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from search_agents.engines.base import FinishReason, SampledSegment, TokenEngine
from search_agents.methods.base import Setting, begin_query, open_answer, require_sessions
from search_agents.methods.prompts import first_line
from search_agents.rollout.collect import derive_seed
from search_env.dialects import make_inert
from search_env.dialects.base import Dialect
from search_env.types import (
    Action,
    ActionKind,
    Call,
    FormatVerdict,
    Hit,
    Prompt,
    Question,
    StopReason,
    Transcript,
    Turn,
)

__all__ = ["answer_after_one_search", "answer_at_once"]


def answer_at_once(setting: Setting, numbers: Sequence[int], questions: Sequence[Question]) -> list[Transcript]:
    """Answer with the reasoning closed and the answer opened.

    Args:
        setting: Engine and budgets.
        numbers: Of the questions; seeds are derived from them.
        questions: The questions.
    """
    engine, rules = _engine(setting), setting.env.rules
    rows, opened = [], []
    for question in questions:
        prompt = rules.dialect.prompt(question.text, rules.style)
        opening = open_answer(rules.dialect, prompt.prefill)
        forced = Prompt(user=prompt.user, system=prompt.system, prefill=prompt.prefill + opening)
        rows.append(engine.encode_prompt(forced, chat=setting.chat))
        opened.append(opening)
    keys = [(number,) for number in numbers]
    segments = _respond(setting, rows, keys=keys, stop=(rules.dialect.answer.close,))
    return [
        _transcript(rules.dialect, question, (), opening + segment.text if segment else None, [_call(row, segment)])
        for question, opening, row, segment in zip(questions, opened, rows, segments, strict=True)
    ]


def answer_after_one_search(
    setting: Setting, numbers: Sequence[int], questions: Sequence[Question], hits: Sequence[tuple[Hit, ...]]
) -> Iterator[tuple[int, Transcript]]:
    """Read the documents as the result of a search of one's own, and go on freely.

    A response that ends in anything but an answer has its reasoning closed and the answer opened for it.

    Args:
        setting: Engine and budgets.
        numbers: Of the questions; seeds are derived from them.
        questions: The questions.
        hits: What was found for each.

    Yields:
        The place of a question among `questions` and its transcript: those that the model answered freely come first.
    """
    engine, rules = _engine(setting), setting.env.rules
    rows, searches = [], []
    for question, found in zip(questions, hits, strict=True):
        prompt = rules.dialect.prompt(question.text, rules.style)
        query = f"{begin_query(rules.dialect, prompt.prefill)} {make_inert(question.text)}{rules.dialect.query.close}"
        action = Action(kind=ActionKind.SEARCH, text=question.text)
        search = Turn(segment=query, action=action, hits=found, observation=rules.dialect.render_documents(found))
        asked = Prompt(user=prompt.user, system=prompt.system, prefill=prompt.prefill + query)
        observation = engine.encode_observation(search.observation)
        rows.append(engine.encode_prompt(asked, chat=setting.chat) + observation)
        searches.append(search)
    segments = _respond(setting, rows, keys=[(number, 0) for number in numbers], stop=rules.dialect.stop)
    calls = [[_call(row, segment)] for row, segment in zip(rows, segments, strict=True)]
    unanswered: dict[int, SampledSegment] = {}
    for row, segment in enumerate(segments):
        if segment is not None and rules.dialect.answer.open not in segment.text:
            unanswered[row] = segment
            continue
        text = segment.text if segment else None
        yield row, _transcript(rules.dialect, questions[row], (searches[row],), text, calls[row])
    for row, text, call in _answers(setting, numbers, rows, unanswered, searches):
        yield row, _transcript(rules.dialect, questions[row], (searches[row],), text, [*calls[row], call])


def _answers(
    setting: Setting,
    numbers: Sequence[int],
    rows: Sequence[list[int]],
    unanswered: Mapping[int, SampledSegment],
    searches: Sequence[Turn],
) -> Iterator[tuple[int, str | None, Call]]:
    """The completed last segment of each response in which the model did not answer by itself, and the call for it."""
    engine, dialect = _engine(setting), setting.env.rules.dialect
    prefill = dialect.prompt("", setting.env.rules.style).prefill
    openings = {
        row: open_answer(dialect, prefill + searches[row].segment + searches[row].observation + segment.text)
        for row, segment in unanswered.items()
    }
    longer = [
        [*rows[row], *_spoken(unanswered[row]), *engine.encode_observation(opening)]
        for row, opening in openings.items()
    ]
    keys = [(numbers[row], 1) for row in openings]
    answers = _respond(setting, longer, keys=keys, stop=(dialect.answer.close,))
    for (row, opening), read, answer in zip(openings.items(), longer, answers, strict=True):
        yield row, f"{unanswered[row].text}{opening}{answer.text}" if answer else None, _call(read, answer)


def _engine(setting: Setting) -> TokenEngine:
    return require_sessions(setting.engine, "a model that was trained on a protocol")


def _respond(
    setting: Setting, rows: Sequence[Sequence[int]], *, keys: Sequence[tuple[int, ...]], stop: tuple[str, ...]
) -> list[SampledSegment | None]:
    """Sample one segment after each row of tokens.

    Args:
        setting: Engine and budgets.
        rows: Token ids.
        keys: What the seed of each row is derived from, beside the setting's.
        stop: Strings that end a segment.

    Returns:
        The segments; None for a row that leaves no room in the budget of tokens.
    """
    segments: list[SampledSegment | None] = [None] * len(rows)
    fitting = [index for index, row in enumerate(rows) if len(row) < setting.max_tokens]
    if fitting:
        seeds = [derive_seed(setting.seed, *keys[index]) for index in fitting]
        session = _engine(setting).open([rows[index] for index in fitting], seeds=seeds, max_tokens=setting.max_tokens)
        sampled = session.sample(range(len(fitting)), dataclasses.replace(setting.sampling, stop=stop))
        for index, segment in zip(fitting, sampled, strict=True):
            segments[index] = segment
    return segments


def _call(row: Sequence[int], segment: SampledSegment | None) -> Call:
    """What a segment took; what was read and written is the transcript itself."""
    return Call(purpose="segment", prompt_tokens=len(row), tokens=len(segment.token_ids) if segment else 0)


def _spoken(segment: SampledSegment) -> list[int]:
    """The tokens of a segment that is to go on: without an end of sequence."""
    return segment.token_ids[:-1] if segment.finish is FinishReason.EOS else segment.token_ids


def _transcript(
    dialect: Dialect, question: Question, earlier: tuple[Turn, ...], text: str | None, calls: Sequence[Call]
) -> Transcript:
    """The transcript of a response in the dialect.

    Args:
        dialect: The protocol.
        question: The question.
        earlier: Turns before the last segment.
        text: The last segment; None if there was no room for one. An answer whose closing tag is missing counts.
        calls: What the last segment took.
    """
    if text is None or dialect.answer.open not in text:
        return _unanswered(question, earlier)
    verdict = dialect.judge_format([*(turn.segment for turn in earlier), text])
    after = text.rsplit(dialect.answer.open, 1)[1]
    answer = after.split(dialect.answer.close)[0].strip() if dialect.answer.close in after else first_line(after)
    turn = Turn(segment=text, action=Action(kind=ActionKind.ANSWER, text=answer), calls=tuple(calls))
    return Transcript(question=question, turns=(*earlier, turn), stop_reason=StopReason.ANSWERED, format=verdict)


def _unanswered(question: Question, earlier: tuple[Turn, ...]) -> Transcript:
    verdict = FormatVerdict(problems=("the episode ends without an answer",))
    return Transcript(question=question, turns=earlier, stop_reason=StopReason.MAX_TOKENS, format=verdict)

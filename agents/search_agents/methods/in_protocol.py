"""The baselines for a model that was trained on a protocol: prompted in it, as it knows no other way to answer."""

from __future__ import annotations

from collections.abc import Sequence

from search_agents.methods.base import Setting, begin_query, open_answer
from search_agents.methods.prompts import first_line
from search_agents.methods.segments import Row, Said, Speaker, begun, speaker_of
from search_env.dialects import make_inert
from search_env.dialects.base import Dialect
from search_env.types import (
    Action,
    ActionKind,
    Call,
    FormatVerdict,
    Hit,
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
    speaker, rules = speaker_of(setting), setting.env.rules
    rows, opened = [], []
    for question in questions:
        prompt = rules.dialect.prompt(question.text, rules.style)
        opening = open_answer(rules.dialect, prompt.prefill)
        rows.append(speaker.begin(begun(prompt, opening)))
        opened.append(opening)
    keys = [(number,) for number in numbers]
    segments = speaker.say(rows, keys=keys, stop=(rules.dialect.answer.close,))
    return [
        _transcript(rules.dialect, question, (), opening + said.text if said else None, [said.call] if said else [])
        for question, opening, said in zip(questions, opened, segments, strict=True)
    ]


def answer_after_one_search(
    setting: Setting, numbers: Sequence[int], questions: Sequence[Question], hits: Sequence[tuple[Hit, ...]]
) -> list[Transcript]:
    """Read the documents as the result of a search of one's own, and go on freely.

    A response that ends in anything but an answer has its reasoning closed and the answer opened for it.

    Args:
        setting: Engine and budgets.
        numbers: Of the questions; seeds are derived from them.
        questions: The questions.
        hits: What was found for each.
    """
    speaker, rules = speaker_of(setting), setting.env.rules
    rows, searches = [], []
    for question, found in zip(questions, hits, strict=True):
        prompt = rules.dialect.prompt(question.text, rules.style)
        query = f"{begin_query(rules.dialect, prompt.prefill)} {make_inert(question.text)}{rules.dialect.query.close}"
        action = Action(kind=ActionKind.SEARCH, text=question.text)
        search = Turn(segment=query, action=action, hits=found, observation=rules.dialect.render_documents(found))
        rows.append(speaker.begin(begun(prompt, query), search.observation))
        searches.append(search)
    segments = speaker.say(rows, keys=[(number, 0) for number in numbers], stop=rules.dialect.stop)
    texts, calls = _answers(setting, speaker, numbers, rows, segments, searches)
    return [
        _transcript(rules.dialect, question, (search,), text, called)
        for question, search, text, called in zip(questions, searches, texts, calls, strict=True)
    ]


def _answers(
    setting: Setting,
    speaker: Speaker[Row],
    numbers: Sequence[int],
    rows: Sequence[Row],
    segments: Sequence[Said | None],
    searches: Sequence[Turn],
) -> tuple[list[str | None], list[list[Call]]]:
    """The last segment of each response, completed where the model did not answer by itself, and what it took."""
    dialect = setting.env.rules.dialect
    prefill = dialect.prompt("", setting.env.rules.style).prefill
    texts = [said.text if said else None for said in segments]
    calls = [[said.call] if said else [] for said in segments]
    cut_short = {
        index: (said, open_answer(dialect, prefill + searches[index].segment + searches[index].observation + said.text))
        for index, said in enumerate(segments)
        if said is not None and dialect.answer.open not in said.text
    }
    longer = [speaker.go_on(rows[index], said, opening) for index, (said, opening) in cut_short.items()]
    keys = [(numbers[index], 1) for index in cut_short]
    answers = speaker.say(longer, keys=keys, stop=(dialect.answer.close,))
    for (index, (said, opening)), answer in zip(cut_short.items(), answers, strict=True):
        texts[index] = f"{said.text}{opening}{answer.text}" if answer else None
        calls[index] += [answer.call] if answer else []
    return texts, calls


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

"""The baselines for a model that was trained on a protocol: prompted in it, as it knows no other way to answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

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


def answer_at_once(setting: Setting, numbers: Sequence[int], questions: Sequence[Question]) -> Iterator[Transcript]:
    """Answer with the reasoning closed and the answer opened.

    Args:
        setting: Engine and budgets.
        numbers: Of the questions; seeds are derived from them.
        questions: The questions.

    Yields:
        The transcript of each question, as it comes.
    """
    speaker, rules = speaker_of(setting), setting.env.rules
    rows, opened = [], []
    for question in questions:
        prompt = rules.dialect.prompt(question.text, rules.style)
        opening = open_answer(rules.dialect, prompt.prefill)
        rows.append(speaker.begin(begun(prompt, opening)))
        opened.append(opening)
    keys = [(number,) for number in numbers]
    for index, said in speaker.say(rows, keys=keys, stop=(rules.dialect.answer.close,)):
        text, calls = (opened[index] + said.text, [said.call]) if said else (None, [])
        yield _transcript(rules.dialect, questions[index], (), text, calls)


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
    speaker, rules = speaker_of(setting), setting.env.rules
    rows, searches = [], []
    for question, found in zip(questions, hits, strict=True):
        prompt = rules.dialect.prompt(question.text, rules.style)
        query = f"{begin_query(rules.dialect, prompt.prefill)} {make_inert(question.text)}{rules.dialect.query.close}"
        action = Action(kind=ActionKind.SEARCH, text=question.text)
        search = Turn(segment=query, action=action, hits=found, observation=rules.dialect.render_documents(found))
        rows.append(speaker.begin(begun(prompt, query), search.observation))
        searches.append(search)
    unanswered: dict[int, Said] = {}
    for index, said in speaker.say(rows, keys=[(number, 0) for number in numbers], stop=rules.dialect.stop):
        if said is not None and rules.dialect.answer.open not in said.text:
            unanswered[index] = said
            continue
        text, calls = (said.text, [said.call]) if said else (None, [])
        yield index, _transcript(rules.dialect, questions[index], (searches[index],), text, calls)
    for index, text, calls in _answers(setting, speaker, numbers, rows, unanswered, searches):
        yield index, _transcript(rules.dialect, questions[index], (searches[index],), text, calls)


def _answers(
    setting: Setting,
    speaker: Speaker[Row],
    numbers: Sequence[int],
    rows: Sequence[Row],
    unanswered: Mapping[int, Said],
    searches: Sequence[Turn],
) -> Iterator[tuple[int, str | None, list[Call]]]:
    """The last segment of each response in which the model did not answer by itself, completed, and what it took."""
    dialect = setting.env.rules.dialect
    prefill = dialect.prompt("", setting.env.rules.style).prefill
    cut_short = [
        (index, said, open_answer(dialect, prefill + searches[index].segment + searches[index].observation + said.text))
        for index, said in sorted(unanswered.items())
    ]
    longer = [speaker.go_on(rows[index], said, opening) for index, said, opening in cut_short]
    keys = [(numbers[index], 1) for index, _, _ in cut_short]
    for place, answer in speaker.say(longer, keys=keys, stop=(dialect.answer.close,)):
        index, said, opening = cut_short[place]
        text, calls = (f"{said.text}{opening}{answer.text}", [answer.call]) if answer else (None, [])
        yield index, text, [said.call, *calls]


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

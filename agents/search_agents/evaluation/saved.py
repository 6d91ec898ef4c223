"""Episodes that somebody saved, ours and others', as transcripts that the scorer reads.

A format is what a project writes to disk after an evaluation:

* ``r1-searcher``: R1-Searcher's JSON lines: ``question``, ``answer``, ``pred_ans``, ``stop_reason_final``,
  ``gen_text_store`` (the response with its documents) and, after judging, ``gpt4o_output``.
* ``search-r1``: verl's JSON lines of a validation (``input``, ``output``, ``gts``), or the rows of Search-R1's own data
  (``prompt``, ``reward_model``) with ``responses`` beside them.
* ``flashrag``: FlashRAG's ``intermediate_data.json``, one list, or JSON lines of the same: ``question``,
  ``golden_answers`` and ``output.pred``.
* ``ours``: transcripts of `search-env eval` or of a run's evaluations, or episodes of a training run.

What the files do not tell stays unknown. A malformed row is a `DatasetError` which starts with ``file:line:``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from search_agents.evaluation.judge import Judgement
from search_agents.rollout.episode import read_transcript
from search_env.datasets.files import read_bytes, read_lines
from search_env.datasets.rows import Row, SkippedRows, describe_value, parse_json, read_rows
from search_env.dialects import get_dialect
from search_env.dialects.base import Dialect
from search_env.errors import ConfigError, DatasetError, unknown_name
from search_env.metrics import Normalisation
from search_env.types import Action, ActionKind, Question, StopReason, Transcript, Turn

__all__ = ["FORMATS", "STORED_JUDGE", "SavedEpisode", "SavedFormat", "read_saved"]

STORED_JUDGE = "gpt4o_output"
"""Names the judge whose replies R1-Searcher's files hold; the paper says it is gpt-4o-mini."""

_BETWEEN = re.compile(r"[\s,]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedEpisode:
    """One episode of a file."""

    transcript: Transcript
    judgement: Judgement | None = None
    """What a judge said of it, if the file holds that."""
    elapsed: float | None = None
    """Seconds that the evaluation had taken when the episode was done, if the file tells."""


class SavedFormat(NamedTuple):
    """How a project saves episodes, and how it compares answers."""

    read: Callable[[Row], SavedEpisode]
    normalisation: Normalisation
    """In which the project's own scores are."""
    tells_searches: bool
    """Whether the response is there, so that searches and format can be told."""
    tells_cost: bool = False
    """Whether the calls of the model are there."""


def read_saved(path: str | Path, format_: str, skipped: SkippedRows | None = None) -> list[SavedEpisode]:
    """Read saved episodes.

    Args:
        path: The file.
        format_: A key of `FORMATS`.
        skipped: Counts the malformed rows that are left out; None if there must be none.

    Raises:
        ConfigError: If there is no such format.
        DatasetError: If the file cannot be read, a row is malformed, or there is none.
    """
    if format_ not in FORMATS:
        raise ConfigError(unknown_name("format", format_, FORMATS))
    if Path(path).is_dir():
        raise DatasetError(f"{path}: is a folder; name a file of episodes in it{_those_of(Path(path))}")
    if not Path(path).exists() and (there := _those_of(Path(path).parent)):
        raise DatasetError(f"{path}: there is no such file; name one of episodes in {Path(path).parent}{there}")
    skipped = SkippedRows() if skipped is None else skipped
    first = next(read_lines(path), None)
    rows = _listed_rows(path, skipped) if first and first.data.lstrip()[:1] == b"[" else read_rows(path, skipped)
    episodes = [episode for row in rows if (episode := skipped.read(FORMATS[format_].read, row)) is not None]
    if not episodes:
        raise DatasetError(f"{path}:1: holds no episodes of the format {format_}")
    return episodes


def _those_of(folder: Path) -> str:
    """The files of episodes that `search-env eval` wrote into a folder, for a message; empty if there are none."""
    names = sorted(file.name for file in folder.glob("transcripts-*.jsonl"))
    return f": {', '.join(names)}" if names else ""


def _listed_rows(path: str | Path, skipped: SkippedRows) -> Iterator[Row]:
    """The rows of a file that is one JSON list, each with the line that it begins at."""
    data = read_bytes(path)
    values = parse_json(data, path)
    text, decoder = data.decode(), json.JSONDecoder()
    counted, line, end = 0, 1, text.index("[") + 1
    for value in values:
        begin = end + len(_BETWEEN.match(text, end)[0])  # type: ignore[index]  # It matches nothing, too.
        line, counted = line + text.count("\n", counted, begin), begin
        end = decoder.raw_decode(text, begin)[1]
        if (row := skipped.read(partial(Row.of, f"{path}:{line}"), value)) is not None:
            yield row


def _read_r1_searcher(row: Row) -> SavedEpisode:
    question = Question(id=_id(row), text=row.text("question"), answers=_golds(row, "answer"))
    reason = row.text("stop_reason_final", "finished")
    if reason not in _R1_SEARCHER_ENDINGS:
        raise row.error(f"'stop_reason_final': {unknown_name('reason', reason, _R1_SEARCHER_ENDINGS)}")
    stop = _R1_SEARCHER_ENDINGS[reason]
    response = row.text("gen_text_store", "")
    dialect = get_dialect("r1-searcher-pipes" if "<|begin_of_query|>" in response else "r1-searcher")
    # Where no answer came, the authors' rows hold words of the script, not of the model.
    answer = _text(row, "pred_ans") if stop is StopReason.ANSWERED else None
    reply = row.text(STORED_JUDGE, "")
    judgement = Judgement(question_id=question.id, model=STORED_JUDGE, prompt="", reply=reply)
    return SavedEpisode(
        transcript=_transcript(question, response, answer, stop, dialect), judgement=judgement if reply else None
    )


def _read_search_r1(row: Row) -> SavedEpisode:
    prompt = row.get("input", None) or row.get("prompt", None)
    if isinstance(prompt, list) and prompt and isinstance(prompt[-1], dict):
        prompt = prompt[-1].get("content")
    asked = row.check_text("input", prompt) if prompt is not None else f"Question: {row.text('question')}"
    question = Question(id=_id(row), text=_last_question(asked), answers=_search_r1_golds(row))
    response = row.get("output", None) or row.get("responses")
    if isinstance(response, list) and len(response) == 1:
        response = response[0]
    response = row.check_text("output", response)
    dialect = get_dialect("search-r1")
    # The last answer counts, as in the authors' reward; a document's words are none of the model's.
    own = re.sub(_documents(dialect), "\n", response, flags=re.DOTALL)
    answers = re.findall(f"{re.escape(dialect.answer.open)}(.*?){re.escape(dialect.answer.close)}", own, re.DOTALL)
    answer = answers[-1].strip() if answers else None
    stop = StopReason.ANSWERED if answers else None
    return SavedEpisode(transcript=_transcript(question, response, answer, stop, dialect))


def _read_flashrag(row: Row) -> SavedEpisode:
    question = Question(id=_id(row), text=row.text("question"), answers=_golds(row, "golden_answers"))
    output = row.get("output")
    if not isinstance(output, dict):
        raise row.error(f"'output' must be an object that holds 'pred', got {describe_value(output)}")
    answer = _text(Row(row.where, output), "pred")
    return SavedEpisode(
        transcript=Transcript(question=question, turns=(_answering("", answer),), stop_reason=StopReason.ANSWERED)
    )


def _read_ours(row: Row) -> SavedEpisode:
    fields = row.get("transcript", row.fields)
    asked = fields.get("question") if isinstance(fields, dict) else None
    if asked is not None and not isinstance(asked, dict):
        raise row.error(
            f"is no transcript of search-env: 'question' must be an object, got {describe_value(asked)}; give a file "
            "of `search-env eval`"
        )
    try:
        transcript = read_transcript(fields)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        problem = f"{type(error).__name__}: {error}"
        raise row.error(f"is no transcript of search-env ({problem}); give a file of `search-env eval`") from None
    if not transcript.question.answers:
        raise row.error("its question has no gold answer, so there is nothing to score")
    elapsed = row.get("elapsed", None)
    return SavedEpisode(transcript=transcript, elapsed=elapsed if isinstance(elapsed, int | float) else None)


def _transcript(
    question: Question, response: str, answer: str | None, stop: StopReason | None, dialect: Dialect
) -> Transcript:
    """A response in which documents stand between the model's segments; `answer` is the answer of record."""
    pieces = re.split(f"(\\s*{_documents(dialect)}\\s*)", response, flags=re.DOTALL)
    segments, observations = pieces[::2], [*pieces[1::2], ""]
    if not segments[-1].strip():
        segments, observations = segments[:-1], observations[:-1]
    verdict = dialect.judge_format(segments)
    turns = [
        Turn(segment=segment, action=dialect.parse(segment), observation=observation)
        for segment, observation in zip(segments, observations, strict=True)
    ]
    if answer is not None:
        turns[-1:] = [_answering(segments[-1] if segments else "", answer)]
    elif turns and turns[-1].action.kind is ActionKind.ANSWER:
        problem = Action(kind=ActionKind.MALFORMED, problem="the file says that no answer was given")
        turns[-1:] = [Turn(segment=segments[-1], action=problem)]
    return Transcript(question=question, turns=tuple(turns), stop_reason=stop, format=verdict)


def _documents(dialect: Dialect) -> str:
    """The pattern of a block of documents."""
    return f"{re.escape(dialect.documents.open)}.*?{re.escape(dialect.documents.close)}"


def _answering(segment: str, answer: str) -> Turn:
    return Turn(segment=segment, action=Action(kind=ActionKind.ANSWER, text=answer))


def _id(row: Row) -> str:
    """The row's own id; without one its line, which tells it from all others of the file."""
    return row.number_or_text("id") if row.get("id", None) is not None else f"line {row.where.rpartition(':')[2]}"


def _text(row: Row, key: str) -> str:
    """A field that must be there and may be empty: an empty answer is an answer, and a wrong one."""
    return row.check_text(key, row.get(key))


def _golds(row: Row, key: str) -> tuple[str, ...]:
    """Gold answers: a text, a list of texts, or a truth value, which is yes or no."""
    value = row.get(key)
    if isinstance(value, bool):
        return ("yes" if value else "no",)
    return (row.text(key),) if isinstance(value, str) else row.texts(key)


def _search_r1_golds(row: Row) -> tuple[str, ...]:
    truth = row.get("gts", None)
    if truth is None:
        model = row.get("reward_model")
        truth = model.get("ground_truth") if isinstance(model, dict) else None
    if isinstance(truth, dict):
        truth = truth.get("target")
    return _golds(Row(row.where, {"ground_truth": truth}), "ground_truth")


def _last_question(prompt: str) -> str:
    """The question at the end of a prompt; all of the prompt if it names none."""
    _, found, rest = prompt.rpartition("Question:")
    lines = rest.strip().splitlines()
    return re.split(r"<\|im_end\|>|<\|eot_id\|>", lines[0])[0].strip() if found and lines else prompt.strip()


_R1_SEARCHER_ENDINGS = {
    "finished": StopReason.ANSWERED,
    "many_retrieve": StopReason.MAX_SEARCHES,
    "query_inst_error": StopReason.MALFORMED,
    "shot_down": StopReason.MALFORMED,
    "retrieve_error": StopReason.RETRIEVER_UNAVAILABLE,
}


def _looks_like(fields: Mapping[str, Any]) -> str | None:
    """The format whose own keys a row has, if any."""
    transcript = fields.get("transcript", fields)
    if isinstance(transcript, dict) and isinstance(transcript.get("question"), dict):
        return "ours"
    if "pred_ans" in fields:
        return "r1-searcher"
    if "golden_answers" in fields and isinstance(fields.get("output"), dict):
        return "flashrag"
    told = fields.get("output", fields.get("responses"))
    return "search-r1" if told is not None and not {"gts", "reward_model"}.isdisjoint(fields) else None


def _reader(format_: str, read: Callable[[Row], SavedEpisode]) -> Callable[[Row], SavedEpisode]:
    """Reads a row; the error for a row of another format names that one."""

    def read_or_name(row: Row) -> SavedEpisode:
        try:
            return read(row)
        except DatasetError as error:
            other = _looks_like(row.fields)
            if other in (None, format_):
                raise
            raise DatasetError(f"{error}. The row is not of the format {format_}; try --format {other}") from None

    return read_or_name


FORMATS: dict[str, SavedFormat] = {
    "r1-searcher": SavedFormat(_reader("r1-searcher", _read_r1_searcher), Normalisation.R1_SEARCHER, True),
    "search-r1": SavedFormat(_reader("search-r1", _read_search_r1), Normalisation.FLASHRAG, True),
    "flashrag": SavedFormat(_reader("flashrag", _read_flashrag), Normalisation.FLASHRAG, False),
    "ours": SavedFormat(_reader("ours", _read_ours), Normalisation.R1_SEARCHER, True, True),
}
"""Every format that is read."""

"""Transcripts on disk: each is there or not, whatever cut the file short; a resumed evaluation asks what is left."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from search_agents.engines.base import Capability, SamplingParams
from search_agents.engines.scripted import ScriptedEngine, ScriptedSession
from search_agents.evaluation.evaluate import evaluate
from search_agents.evaluation.transcript_log import TranscriptLog, is_valid
from search_agents.methods import Setting, make_method

from search_env import SearchQAVectorEnv
from search_env.datasets import Dataset
from search_env.errors import RetrieverUnavailable, RunError
from search_env.retrieval.base import InMemoryRetriever
from search_env.retrieval.metering import record
from search_env.types import (
    Action,
    ActionKind,
    Call,
    Document,
    FormatVerdict,
    Hit,
    Hop,
    Question,
    Spending,
    StopReason,
    Transcript,
    Turn,
)

PLACES = ("Norway", "Peru", "Chile", "Japan", "Kenya")
DOCUMENTS = tuple(Document(id=name, title=name, text=f"{name} has a capital.") for name in PLACES)
QUESTIONS = tuple(Question(id=name.lower(), text=f"{name} capital?", answers=(name,)) for name in PLACES)
DATASET = Dataset(name="tiny", split="dev", questions=QUESTIONS, documents=DOCUMENTS)


class Killed(BaseException):
    """Ends an evaluation as a crash does."""


class Engine(ScriptedEngine):
    """Answers after a search, or at once; keeps which question was asked with which seed, and dies when told."""

    def __init__(self, batches_to_live: int = 1000) -> None:
        answer = "</think> <answer> Peru </answer>"
        super().__init__({"": ["<begin_of_query> capital <end_of_query>", answer, answer]})
        self.asked: list[tuple[str, int]] = []
        self.left = batches_to_live

    @property
    def capabilities(self) -> frozenset[Capability]:
        # Episodes in turns: searches then come in batches that can be counted.
        return super().capabilities - {Capability.ASYNCHRONOUS}

    def open(self, prompts: Sequence[Sequence[int]], *, seeds: Sequence[int], max_tokens: int) -> ScriptedSession:
        self.left -= 1
        if self.left < 0:
            raise Killed
        for prompt, seed in zip(prompts, seeds, strict=True):
            text = self.tokenizer.decode(prompt)
            self.asked.append((next(name for name in PLACES if f"{name} capital?" in text), seed))
        return super().open(prompts, seeds=seeds, max_tokens=max_tokens)


class Paid(InMemoryRetriever):
    """A quarter a query; fails from one batch to another."""

    def __init__(self, down: range = range(0)) -> None:
        super().__init__(DOCUMENTS)
        self.down, self.batches, self.paid = down, 0, 0

    def search(self, queries: Sequence[str], top_k: int) -> Any:
        self.batches += 1
        self.paid += len(set(queries))
        record("serper", {query: Spending(calls=1, cost=0.25) for query in queries})
        if self.batches - 1 in self.down:
            raise RetrieverUnavailable("gone")
        return super().search(queries, top_k)


def run(method: str, log: TranscriptLog | None, engine: Engine, retriever: Paid | None = None) -> Any:
    env = SearchQAVectorEnv(2, dataset=DATASET, retriever=retriever or Paid(), prompt="bare", top_k=1)
    sampling = SamplingParams(max_tokens=200)
    setting = Setting(engine=engine, env=env, sampling=sampling, max_tokens=2000, chat=False, seed=3)
    return evaluate(make_method(method, setting), QUESTIONS, log)


def odd(name: str, **changes: Any) -> Transcript:
    """A transcript with everything in it that a line must keep."""
    question = Question(
        id=name,
        text='Who?\n"\\',
        answers=("a", "ä"),
        hops=2,
        gold_titles=("T", "U"),
        decomposition=(Hop(query="q", answer="a"),),
    )
    turn = Turn(
        segment="lone \ud800 \u2028 <answer>",
        action=Action(kind=ActionKind.SEARCH, text="q\0"),
        hits=(Hit(document=DOCUMENTS[0], score=0.1),),
        observation="…\r\n",
    )
    given: dict[str, Any] = {"stop_reason": StopReason.MAX_TURNS, "spending": {"serper": Spending(calls=1, cost=0.1)}}
    verdict = FormatVerdict(problems=("no answer",))
    return Transcript(question=question, turns=(turn,), format=verdict, **{**given, **changes})


def test_tokens_are_kept_where_they_are_known_and_a_line_without_them_is_read(tmp_path: Path) -> None:
    known = Call(purpose="segment", tokens=2, token_ids=(5, 7), logprobs=(-0.5, None))
    other = Call(purpose="verdict", text="Yes", tokens=2)
    (turn,) = odd("one").turns
    written = [
        dataclasses.replace(odd(name), turns=(dataclasses.replace(turn, calls=(call,)),))
        for name, call in (("known", known), ("other", other))
    ]
    log = TranscriptLog(tmp_path / "log.jsonl")
    for transcript in written:
        log.append(transcript, 1.0)
    assert list(TranscriptLog(tmp_path / "log.jsonl").transcripts.values()) == written
    with_tokens, without = (json.loads(line) for line in (tmp_path / "log.jsonl").read_text().split("\n")[:-1])
    assert with_tokens["turns"][0]["calls"][0]["token_ids"] == [5, 7]
    assert not {"token_ids", "logprobs"} & without["turns"][0]["calls"][0].keys(), "as lines were written before"


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    log = TranscriptLog(tmp_path / "log.jsonl")
    written = [odd("one"), odd("two", spending={}), odd("three", stop_reason=StopReason.RETRIEVER_UNAVAILABLE)]
    for seconds, transcript in enumerate(written, start=1):
        log.append(transcript, float(seconds))
    again = TranscriptLog(tmp_path / "log.jsonl")
    assert list(again.transcripts.values()) == written
    assert again.seconds == 3.0
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().split("\n")[:-1]]
    assert [row.get("spending") for row in rows][1:] == [
        None,
        {"serper": dataclasses.asdict(Spending(calls=1, cost=0.1))},
    ]
    assert [row["metrics"] is None for row in rows] == [False, False, True]


def test_a_line_that_was_cut_anywhere_is_asked_again_and_no_other(tmp_path: Path) -> None:
    """Risk 12: a log that is cut at any byte of its last line."""
    file = tmp_path / "log.jsonl"
    log = TranscriptLog(file)
    for name in ("one", "two"):
        log.append(odd(name), 1.0)
    whole = file.read_bytes()
    last = whole.index(b"\n") + 1
    for cut in range(last, len(whole)):
        file.write_bytes(whole[:cut])
        log = TranscriptLog(file)
        assert list(log.transcripts) == ["one"]
        log.append(odd("two"), 1.0)
        assert file.read_bytes() == whole


def test_a_cut_first_line_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"question": {"id"')
    log = TranscriptLog(tmp_path / "log.jsonl")
    assert log.transcripts == {}
    log.append(odd("one"), 1.0)
    assert list(TranscriptLog(tmp_path / "log.jsonl").transcripts) == ["one"]


@pytest.mark.parametrize("line", ["{}", "[]", "nonsense", '{"question": {"id": "x"}, "elapsed": 1}'])
def test_a_line_that_is_no_transcript_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "log.jsonl").write_text(f"{line}\n")
    with pytest.raises(RunError, match=r"log\.jsonl: a line is no transcript"):
        TranscriptLog(tmp_path / "log.jsonl")


@pytest.mark.parametrize("method", ["r1-searcher", "naive-generation", "standard-rag", "ircot", "oracle", "random"])
def test_without_a_log_nothing_is_skipped_and_all_is_answered_in_order(method: str) -> None:
    found = run(method, None, Engine())
    assert [transcript.question for transcript in found.transcripts] == list(QUESTIONS)


@pytest.mark.parametrize("method", ["r1-searcher", "naive-generation", "standard-rag"])
@pytest.mark.parametrize("batches", [0, 1, 2])
def test_an_evaluation_that_was_killed_goes_on_as_if_it_had_not_been(tmp_path: Path, method: str, batches: int) -> None:
    """Risk 12: no line is there twice after a crash."""
    whole = Engine()
    undisturbed = run(method, TranscriptLog(tmp_path / "whole.jsonl"), whole)
    file = tmp_path / "log.jsonl"
    # Standard RAG first lets the model go on freely, then makes it answer.
    first, second = Engine(batches * (2 if method == "standard-rag" else 1)), Engine()
    with pytest.raises(Killed):
        run(method, TranscriptLog(file), first)
    kept = [transcript.question.id for transcript in TranscriptLog(file).transcripts.values()]
    assert kept == [question.id for question in QUESTIONS[: 2 * batches]]
    found = run(method, TranscriptLog(file), second)
    assert found.transcripts == undisturbed.transcripts
    assert first.asked + second.asked == whole.asked  # seeds included
    without_times = [
        [{**json.loads(line), "elapsed": 0} for line in (tmp_path / name).read_text().splitlines()]
        for name in ("whole.jsonl", "log.jsonl")
    ]
    assert without_times[0] == without_times[1]


@pytest.mark.parametrize("method", ["r1-searcher", "standard-rag", "random"])
def test_invalid_episodes_are_asked_again_valid_ones_never_and_all_is_paid_for(tmp_path: Path, method: str) -> None:
    file = tmp_path / "log.jsonl"
    undisturbed = run(method, None, Engine())
    failing = Paid(down=range(1, 2))
    broken = run(method, TranscriptLog(file), Engine(), failing)
    invalid = [transcript.question.id for transcript in broken.transcripts if not is_valid(transcript)]
    assert invalid == ["chile", "japan"]
    assert (broken.scores.n, broken.scores.invalid) == (3, 2)
    engine, retriever, earlier = Engine(), Paid(), TranscriptLog(file).seconds
    mended = run(method, TranscriptLog(file), engine, retriever)
    assert {name.lower() for name, _ in engine.asked} <= set(invalid)
    assert retriever.batches == 1
    cost = mended.scores.search_cost_per_question  # the failed searches were paid for, too
    assert cost > undisturbed.scores.search_cost_per_question > 0
    assert mended.scores == dataclasses.replace(
        undisturbed.scores, search_cost_per_question=cost, cost_per_question=cost
    )
    assert mended.to_dict()["spending"]["serper"]["calls"] == failing.paid + retriever.paid
    assert len(file.read_text().splitlines()) == len(QUESTIONS)
    assert mended.seconds > earlier > 0
    idle = Engine()
    assert run(method, TranscriptLog(file), idle).transcripts == mended.transcripts
    assert idle.asked == []

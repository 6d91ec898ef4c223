"""A person in an evaluation: one question at a time, kept when the person leaves."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from search_agents.cli import main
from search_agents.engines.scripted import ScriptedEngine
from search_agents.evaluation.evaluate import Evaluation, evaluate
from search_agents.evaluation.transcript_log import TranscriptLog
from search_agents.methods import Setting, make_method

from search_env.types import StopReason

PAGES = (("Ondo", "Ondo lies in Varr."), ("Varr", "Varr is a land."))
QUESTIONS = ("Where is Ondo?", "Where is Varr?", "Where is Kes?")


@pytest.fixture
def play(make_page_setting: Callable[..., Setting], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Evaluation]:
    def run(lines: str, log: TranscriptLog | None = None, dialect: str = "r1-searcher", **env: int) -> Evaluation:
        monkeypatch.setattr("sys.stdin", io.StringIO(lines))
        setting = make_page_setting(ScriptedEngine({}), PAGES, QUESTIONS, env={"dialect": dialect, **env})
        return evaluate(make_method("human", setting), setting.env.dataset.questions, log)

    return run


@pytest.mark.parametrize("dialect", ["r1-searcher", "search-r1"])
def test_a_person_plays_every_question_in_the_right_format(
    play: Callable[..., Evaluation], capsys: pytest.CaptureFixture[str], dialect: str
) -> None:
    found = play("Ondo\n\nanswer: Varr\nanswer: a land\nzebra\nanswer: no\n", dialect=dialect)
    assert [transcript.answer for transcript in found.transcripts] == ["Varr", "a land", "no"]
    assert [transcript.queries for transcript in found.transcripts] == [("Ondo",), (), ("zebra",)]
    assert found.scores.format_rate == 1.0 and found.scores.calls_per_question == 0
    assert found.to_dict()["note"] == "a person at the terminal: no model was asked"
    out = capsys.readouterr().out
    assert "Question 1 of 3: Where is Ondo?" in out and "  (1) Ondo: Ondo lies in Varr." in out
    assert "  nothing found" in out and "none of the methods reads this" not in out


def test_the_budgets_of_the_environment_hold_for_a_person_too(play: Callable[..., Evaluation]) -> None:
    found = play("Ondo\nVarr\n" * 3, max_searches=1)
    assert {transcript.stop_reason for transcript in found.transcripts} == {StopReason.MAX_SEARCHES}


def test_what_is_not_understood_is_told(play: Callable[..., Evaluation], capsys: pytest.CaptureFixture[str]) -> None:
    found = play("</search>\nanswer: a\n" * 3, dialect="search-r1")
    assert "  not understood: </search> without <search>" in capsys.readouterr().out
    assert found.scores.format_rate == 0.0 and [len(each.turns) for each in found.transcripts] == [2, 2, 2]


@pytest.mark.parametrize("leaving", ["Varr\nQuit\n", ""])
def test_who_leaves_goes_on_later_with_the_next_question(
    play: Callable[..., Evaluation], tmp_path: Path, capsys: pytest.CaptureFixture[str], leaving: str
) -> None:
    with pytest.raises(KeyboardInterrupt):
        play(f"answer: one\n{leaving}", TranscriptLog(tmp_path / "log.jsonl"))
    capsys.readouterr()
    found = play("answer: two\nanswer: three\n", TranscriptLog(tmp_path / "log.jsonl"))
    assert [transcript.answer for transcript in found.transcripts] == ["one", "two", "three"]
    assert "Question 1 of 3" not in capsys.readouterr().out


def test_the_row_of_a_person_is_made_by_the_same_command_as_all_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "human"
    monkeypatch.setattr("sys.stdin", io.StringIO("a film\nanswer: nobody\nquit\n"))
    assert main(["eval", "--method", "human", "--limit", "2", "--out", str(out)]) == 130
    assert f"search-env resume {out}" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", io.StringIO("answer: nobody\n"))
    assert main(["resume", str(out)]) == 0
    assert "Note: a person at the terminal: no model was asked." in capsys.readouterr().out
    row = json.loads((out / "result.json").read_text())["results"][0]
    assert row["n"] == 2 and row["searches_per_question"] == 0.5 and row["calls_per_question"] == 0

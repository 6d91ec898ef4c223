"""An evaluation shows how far it is and how it goes: on a bar, or by lines that nobody has to skip."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("torch")

from search_agents.cli import main
from search_agents.evaluation import running_scores
from search_agents.evaluation.running_scores import RunningScores
from search_agents.learning.progress import DISPLAYS, make_progress

from search_env.types import Action, ActionKind, FormatVerdict, Question, StopReason, Transcript, Turn

Captured = pytest.CaptureFixture[str]

QUESTION = Question(id="q", text="Where?", answers=("the old town",))
EVAL = ["eval", "--method", "oracle", "--limit", "4", "--evaluation.temperatures", "[0]"]
ALL_DONE = "4/4 questions  F1 1.000  EM 1.000  invalid 0"


def answered(answer: str, stop_reason: StopReason = StopReason.ANSWERED) -> Transcript:
    turn = Turn(segment="", action=Action(kind=ActionKind.ANSWER, text=answer))
    return Transcript(question=QUESTION, turns=(turn,), stop_reason=stop_reason, format=FormatVerdict())


class Shown:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[tuple[int, str]] = []
        self.bar: list[tuple[int, str]] = []

    def count(self, done: int, text: str) -> None:
        self.lines.append((done, text))

    def advance(self, done: int, text: str) -> None:
        self.bar.append((done, text))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    now = [0.0]
    monkeypatch.setattr(running_scores.time, "monotonic", lambda: now[0])
    yield now


def test_means_are_over_valid_episodes_and_the_others_are_counted(clock: list[float]) -> None:
    shown = Shown()
    scores = RunningScores(shown, 4)  # type: ignore[arg-type]
    scores.add(answered("", StopReason.RETRIEVER_UNAVAILABLE))
    for answer in ("the old town", "a new town", "no"):
        scores.add(answered(answer))
    assert [text for _, text in shown.bar] == [
        "1/4 questions  F1 -  EM -  invalid 1",
        "2/4 questions  F1 1.000  EM 1.000  invalid 1",
        "3/4 questions  F1 0.750  EM 0.500  invalid 1",
        "4/4 questions  F1 0.500  EM 0.333  invalid 1",
    ]


def test_a_line_comes_every_ten_seconds_and_at_the_end(clock: list[float]) -> None:
    shown = Shown()
    scores = RunningScores(shown, 100)  # type: ignore[arg-type]
    for second in range(100):
        clock[0] = second / 3
        scores.add(answered("no"))
    assert [done for done, _ in shown.lines] == [31, 61, 91, 100]
    assert [done for done, _ in shown.bar] == list(range(1, 101))


@pytest.mark.parametrize("display", ["plain", "rich"])
def test_the_bar_moves_without_a_line(display: str, capsys: Captured) -> None:
    progress = make_progress(display, 5)
    progress.advance(3, "3/5 \x1b[31m")
    progress.close()
    out = capsys.readouterr().out
    assert ("3/5" in out) == (display == "rich") and "\x1b" not in out


@pytest.mark.parametrize("display", DISPLAYS)
def test_eval_shows_what_the_display_shows_and_its_table_after_it(
    display: str, tmp_path: Path, capsys: Captured
) -> None:
    assert main([*EVAL, "--display", display, "--out", str(tmp_path / "out")]) == 0
    out = capsys.readouterr().out
    assert (ALL_DONE in out) == (display != "none")
    assert ("oracle, temperature 0: 4 questions" in out) == (display != "none")
    assert out.splitlines()[-1] == str(tmp_path / "out") and "| oracle, temperature 0 |" in out


def test_resume_counts_what_was_answered_before(tmp_path: Path, capsys: Captured) -> None:
    out = tmp_path / "out"
    assert main([*EVAL, "--display", "none", "--out", str(out)]) == 0
    log = out / "transcripts-0.jsonl"
    log.write_text("".join(log.read_text().splitlines(keepends=True)[:2]))
    (out / "result.json").unlink()
    capsys.readouterr()
    assert main(["resume", str(out), "--display", "plain"]) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if "questions  F1" in line] == [ALL_DONE]


def test_bench_shows_each_evaluation(tmp_path: Path, capsys: Captured) -> None:
    argv = ["bench", "methods", "--methods", "[oracle, random]", "--sets", "[{split: test}]", "--limit", "4"]
    assert main([*argv, "--display", "plain", "--out", str(tmp_path / "out")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len([line for line in lines if re.match(r"4/4 questions  F1 \d", line)]) == 2


def test_a_person_is_not_told_which_answers_were_right(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("answer: a\nanswer: b\n"))
    argv = ["eval", "--method", "human", "--limit", "2", "--evaluation.temperatures", "[0]", "--display", "plain"]
    assert main([*argv, "--out", str(tmp_path / "out")]) == 0
    assert "2/2 questions" not in capsys.readouterr().out

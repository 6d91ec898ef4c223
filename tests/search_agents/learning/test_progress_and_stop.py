"""What a run shows, where it came from, and how it takes Ctrl-C."""

from __future__ import annotations

import getpass
import json
import os
import platform
import signal
import sys

import pytest
from search_agents.learning.interrupt import deferred_interrupt
from search_agents.learning.progress import make_progress, sparkline, step_line
from search_agents.learning.provenance import describe_origin
from search_agents.learning.start import limit_threads

ROW = {
    "step": 3,
    "stage": "stage1",
    "reward": 0.4567,
    "f1": 0.1,
    "search_rate": 0.5,
    "format_rate": 1.0,
    "searches_per_question": 1.25,
    "response_tokens": 80.4,
    "kl": None,
    "entropy": 2.0,
    "seconds": 9.87,
}


def test_a_step_is_one_line_with_every_figure() -> None:
    assert step_line(ROW, 28) == (
        "step   3/28  stage1    reward 0.457  f1 0.100  search 0.50  format 1.00  searches/q 1.25  "
        "tokens 80  kl -  entropy 2.00  9.9 s"
    )


@pytest.mark.parametrize("display", ["plain", "rich"])
def test_every_display_shows_phases_and_steps(display: str, capsys: pytest.CaptureFixture[str]) -> None:
    progress = make_progress(display, 28)
    progress.phase("loading [bold]questions[/bold]")
    progress.step(ROW)
    progress.expect(9)
    progress.step(ROW)
    progress.close()
    out = capsys.readouterr().out
    assert "loading [bold]questions[/bold]" in out
    assert "3/28 " in out and "3/9 " in out and "reward 0.457" in out


@pytest.mark.parametrize("display", ["plain", "rich"])
def test_no_text_commands_the_terminal(display: str, capsys: pytest.CaptureFixture[str]) -> None:
    hostile = "\x1b]0;title\x07\x1b[31m\u202e[red]\r"
    progress = make_progress(display, 28)
    progress.phase(hostile)
    progress.count(1, hostile)
    progress.step({**ROW, "stage": hostile})
    progress.close()
    out = capsys.readouterr().out
    assert out.count(r"\x1b]0;title\x07\x1b[31m\u202e[red]\r") >= 3
    assert not {"\x1b", "\x07", "\u202e", "\r"} & set(out)


def test_the_live_table_shows_first_and_newest_figures_and_the_course_between(
    capsys: pytest.CaptureFixture[str],
) -> None:
    progress = make_progress("rich", 28)
    for step, reward in enumerate((0.1, 0.4, 0.8), start=3):
        progress.step({**ROW, "step": step, "reward": reward})
    progress.close()
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["metric", "first", "now", "steps", "3", "to", "5"] in lines
    assert ["reward", "0.100", "0.800", "▁▄█"] in lines
    assert ["kl", "-", "-"] in lines, "what was not measured has no course"


@pytest.mark.parametrize(
    ("values", "drawn"),
    [([], ""), ([5.0, 5.0], "▅▅"), ([0.0, None, 7.0], "▁ █"), ([0.0, 1.0, 2.0, 3.0, 6.0, 8.0], "▁▃█"), ([None], " ")],
)
def test_a_sparkline_reaches_from_the_lowest_to_the_highest(values: list[float | None], drawn: str) -> None:
    assert sparkline(values, width=3) == drawn


def test_without_a_terminal_the_display_is_plain(capsys: pytest.CaptureFixture[str]) -> None:
    progress = make_progress("auto", 28)
    progress.step(ROW)
    progress.close()
    assert capsys.readouterr().out == step_line(ROW, 28) + "\n"


def test_the_origin_names_versions_and_machine_but_no_person_or_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["/home/someone/bin/search-env", "train", "--seed", "1"])
    origin = describe_origin()
    assert origin["command"] == "search-env train --seed 1"
    assert origin["versions"]["gymnasium"]
    assert origin["machine"]["cores"] >= 1
    told = json.dumps(origin)
    assert platform.node() not in told
    assert getpass.getuser() not in {word for value in origin["machine"].values() for word in str(value).split()}


def test_the_first_interrupt_lets_the_step_finish_and_the_second_does_not() -> None:
    notices = []
    with deferred_interrupt(lambda: notices.append("stopping")) as request:
        assert not request.made
        os.kill(os.getpid(), signal.SIGINT)
        assert request.made
        assert notices == ["stopping"]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)


def test_outside_the_step_an_interrupt_is_what_it_was_before() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with deferred_interrupt(lambda: None):
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


def test_threads_are_bounded_unless_the_user_has_set_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MKL_NUM_THREADS", "OMP_WAIT_POLICY", "TOKENIZERS_PARALLELISM", "RAY_USAGE_STATS_ENABLED"):
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    limit_threads(2)
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert os.environ["MKL_NUM_THREADS"] == "2"
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"

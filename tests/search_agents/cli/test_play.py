"""Playing by hand: typed lines become well-formed segments."""

from __future__ import annotations

import io

import pytest
from search_agents.cli import main
from search_agents.methods.human import as_segment

from search_env.dialects import DIALECTS, get_dialect
from search_env.types import ActionKind

Captured = pytest.CaptureFixture[str]


def play(lines: str, monkeypatch: pytest.MonkeyPatch, capsys: Captured, *arguments: str) -> str:
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    assert main(["play", *arguments]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", DIALECTS)
def test_plain_words_make_an_episode_in_the_right_format(name: str) -> None:
    dialect = get_dialect(name)
    segments = [as_segment(line, dialect) for line in ("mayor of Oslo\n", "mayor", " Answer: Kari Nordmann \n")]
    actions = [dialect.parse(segment) for segment in segments]
    assert [(action.kind, action.text) for action in actions] == [
        (ActionKind.SEARCH, "mayor of Oslo"),
        (ActionKind.SEARCH, "mayor"),
        (ActionKind.ANSWER, "Kari Nordmann"),
    ]
    assert dialect.judge_format(segments).problems == ()


def test_an_answer_at_once_is_in_the_right_format() -> None:
    dialect = get_dialect("r1-searcher")
    assert dialect.judge_format([as_segment("answer: yes", dialect)]).ok


def test_a_line_with_a_tag_is_passed_on_as_it_is() -> None:
    line = "hm <begin_of_query> x <end_of_query>"
    assert as_segment(line, get_dialect("r1-searcher")) == line


def test_an_episode_is_played_from_a_pipe(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    out = play("director of a film\n\nanswer: nobody\nnever read\n", monkeypatch, capsys, "--question", "0")
    assert out.startswith("Question: ")
    assert "  (1) " in out
    assert "[answered] reward 0 (f1 0, format 0)" in out
    assert out.rstrip().splitlines()[-1].startswith("Right answer: ")


@pytest.mark.parametrize("lines", ["", "quit\n", "a film\nQUIT\n"])
def test_leaving_early_is_no_error(lines: str, monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    assert "Left without an answer." in play(lines, monkeypatch, capsys, "--seed", "3")


def test_the_same_seed_asks_the_same_question(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    first, second, other = (play("", monkeypatch, capsys, "--seed", seed) for seed in ("1", "1", "2"))
    assert first == second != other


def test_an_unknown_question_is_one_message(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    assert main(["play", "--question", "nope"]) == 2
    assert "no question with id 'nope'" in capsys.readouterr().err


def test_missing_data_is_one_message(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    assert main(["play", "--env", "SearchQA-HotpotQA-v0", "--data", "/nowhere"]) == 2
    assert "/nowhere" in capsys.readouterr().err


def test_retriever_and_reward_can_be_chosen(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("a film\nanswer: nobody\n"))
    assert main(["play", "--retriever", "{name: resilient, of: bm25}", "--reward", "stage1"]) == 0
    out = capsys.readouterr().out
    assert "retrieval" in out and "0.5" in out
    assert main(["play", "--reward", "stage9"]) == 2
    assert "Did you mean 'stage" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--top-k", "0"], "--top-k: top_k: input should be greater than 0 (given: '0')"),
        (["--retriever", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_a_wrong_setting_is_one_message(arguments: list[str], message: str, capsys: Captured) -> None:
    assert main(["play", *arguments]) == 2
    assert message in capsys.readouterr().err

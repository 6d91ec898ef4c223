"""What a board shows: comparable rows together, printed figures apart, names as text."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from search_agents.cli import main
from search_agents.leaderboard.board import Board, Checked, Refused
from search_agents.leaderboard.markdown import markdown
from search_agents.leaderboard.page import page
from search_agents.leaderboard.published import read_published
from search_agents.leaderboard.row import Row
from search_agents.leaderboard.sections import Section, sections

from search_env.errors import ConfigError

HOSTILE = '</script><script>window.stolen = 1</script><img src=x onerror="window.stolen = 1">|`*\u202e\x1b[31m'


@pytest.fixture
def rows(full_board: Path) -> dict[str, Row]:
    return Board(full_board).check().rows


def changed(row: Row, part: str, **values: Any) -> Row:
    """The row with other values in one of its parts."""
    return row.model_copy(update={part: getattr(row, part).model_copy(update=values)})


def shown(rows: dict[str, Row], refused: tuple[Refused, ...] = ()) -> list[Section]:
    return sections(Checked(rows=rows, refused=refused), read_published(), Path("board"))


def measured(found: list[Section]) -> list[Section]:
    return [section for section in found if section.header and not section.published]


def agents(section: Section) -> list[str]:
    return [row[0].text for row in section.rows]


def of(rows: dict[str, Row], agent: str) -> Row:
    return next(row for row in rows.values() if row.agent.name == agent)


def test_rows_of_one_setting_and_model_share_a_table_the_best_first(rows: dict[str, Row]) -> None:
    (table,) = measured(shown(rows))
    assert agents(table)[0] == "oracle" and sorted(agents(table)) == ["oracle", "random", "standard-rag"]
    f1 = [row[table.header.index("F1")].value for row in table.rows]
    assert f1 == sorted(f1, reverse=True)
    assert re.fullmatch(r"\d+\.\d \(\d+\.\d to \d+\.\d\)", table.rows[0][table.header.index("F1")].text)


@pytest.mark.parametrize(
    ("part", "values"),
    [
        ("benchmark", {"dataset_hash": "0" * 16}),
        ("benchmark", {"questions_hash": "0" * 16}),
        ("benchmark", {"questions": 7}),
        ("benchmark", {"split": "dev"}),
        ("setting", {"corpus_hash": "0" * 16}),
        ("setting", {"retriever_fingerprint": "bm25-0"}),
        ("setting", {"k": 5}),
        ("setting", {"max_searches": 3}),
        ("setting", {"max_episode_tokens": 999}),
        ("model", {"fingerprint": "0" * 16}),
    ],
)
def test_whatever_else_differs_keeps_two_rows_apart(part: str, values: dict[str, Any], rows: dict[str, Row]) -> None:
    other = changed(of(rows, "standard-rag"), part, **values)
    tables = measured(shown({**rows, "other": other}))
    assert len(tables) == 2
    assert all(agents(table).count("standard-rag") == 1 for table in tables)


def test_the_bounds_stand_in_the_table_of_every_model_of_their_setting(rows: dict[str, Row]) -> None:
    other = changed(of(rows, "standard-rag"), "model", fingerprint="0" * 16)
    assert all({"oracle", "random"} < set(agents(table)) for table in measured(shown({**rows, "other": other})))


@pytest.mark.parametrize("bound", ["oracle", "random"])
def test_a_board_without_a_bound_says_so_and_the_command_adds_it(
    bound: str, bench: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["leaderboard", "add", str(bench / "FictionalWiki-v0-test" / "standard-rag"), "--board", "board"]) == 0
    found = shown(Board(Path("board")).check().rows)
    (table,) = measured(found)
    assert f"The {bound} agent is missing, so nobody can tell what these scores are worth." in table.notes
    command = next(each for each in table.commands if f"--method {bound}" in each)
    assert f"\n    {command}\n" in markdown(found)
    for words in command.split(" && "):
        name, *argv = shlex.split(words)
        assert name == "search-env" and main(argv) == 0
    (table,) = measured(shown(Board(Path("board")).check().rows))
    assert bound in agents(table) and len(table.commands) == 1


def test_published_rows_have_tables_of_their_own_under_the_set_they_are_of(rows: dict[str, Row]) -> None:
    ours = changed(of(rows, "standard-rag"), "benchmark", environment="SearchQA-HotpotQA-v0")
    found = shown({"ours": ours})
    headings = [section.heading for section in found]
    at = headings.index("Published, not measured here: HotpotQA")
    assert headings[at - 1].startswith("Setting 1, model tiny") and headings[at - 2].startswith("HotpotQA-v0")
    apart = headings.index("Published, without a row of ours beside it")
    assert [each.removeprefix("Published, not measured here: ") for each in headings[apart + 1 : -1]] == [
        "2WikiMultiHopQA",
        "Bamboogle",
        "MuSiQue",
    ]
    printed = [section for section in found if section.published]
    assert [len(section.rows) for section in printed] == [30, 30, 32, 30]
    assert found[-1].heading == "What is like for like" and "not like for like within itself" in found[-1].notes[1]


def test_published_figures_are_those_of_the_paper() -> None:
    published = read_published()
    found = {(row.agent, row.model, row.by): row.scores for row in published.rows}
    assert len(found) == len(published.rows) == 32
    ours = found["R1-Searcher (RL-Zero)", "Qwen-2.5-7B", "r1-searcher"]
    assert ours == {"hotpotqa": (65.4, 75.0), "2wikimultihopqa": (63.6, 65.0), "bamboogle": (52.8, 54.4),
                    "musique": (28.2, 31.4)}  # fmt: skip
    assert found["ReARTeR", "GPT-4o-mini", "rearter"]["hotpotqa"] == (46.8, 50.6)
    assert found["IRCoT", "Llama-3.1-8B-Instruct", "rearter"]["2wikimultihopqa"] == (33.8, 31.2)
    assert {row.by for row in published.rows} == set(published.protocols)


def test_a_published_table_with_an_unknown_key_is_refused_with_its_name(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("source: x\nsets: {}\nprotocols: {}\nnotes: []\nrows: []\nrank: 1\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml: is no published table"):
        read_published(file)


def test_hostile_words_are_text_in_both_pages(rows: dict[str, Row]) -> None:
    row = changed(of(rows, "standard-rag"), "agent", name=HOSTILE, note=HOSTILE, prompt=HOSTILE)
    row = changed(row, "model", name=HOSTILE)
    row = changed(row, "benchmark", environment=HOSTILE, data=HOSTILE, dataset_hash=HOSTILE)
    found = shown({HOSTILE: row}, (Refused(name=HOSTILE, reason=HOSTILE),))
    written = page(found)
    assert written.count("<script") == written.count("</script>") == 2 and "<img" not in written
    data = re.search(r'<script id="board" type="application/json">(.*?)</script>', written, re.DOTALL)
    assert data and "<" not in data[1] and HOSTILE[:20] in json.loads(data[1])[1]["notes"][0]
    assert "\u202e" not in written and "\x1b" not in written
    text = markdown(found)
    words = "\n".join(line for line in text.splitlines() if not line.startswith("    "))
    assert not re.search(r"(?<!\\)<", words)
    assert "\u202e" not in text and "\x1b" not in text
    lines = text.splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("| agent"))
    assert len({len(re.findall(r"(?<!\\)\|", lines[at + offset])) for offset in range(3)}) == 1


def test_the_page_allows_its_own_script_and_style_and_nothing_else(rows: dict[str, Row]) -> None:
    written = page(shown(rows))
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', written)
    assert policy and policy[1].startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy[1] and "http" not in policy[1]
    assert not re.search(r"(?:src|href)=[\"'](?!data:)", written)


def test_show_writes_both_pages_where_it_is_told(
    full_board: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    md, html = tmp_path / "a" / "x.md", tmp_path / "b" / "x.html"
    argv = ["leaderboard", "show", "--board", str(full_board), "--md", str(md), "--html", str(html)]
    assert main(argv) == 0
    assert capsys.readouterr().out == md.read_text() + "\n"
    assert html.read_text().startswith("<!doctype html>")
    assert str(full_board) not in md.read_text() + html.read_text()

"""The page in a real browser, opened as a file: it sorts, filters, and runs nothing that a row holds."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from search_agents.leaderboard.board import Board, Checked
from search_agents.leaderboard.page import page
from search_agents.leaderboard.published import read_published
from search_agents.leaderboard.sections import sections

HOSTILE = "</script><script>window.stolen = 1</script><img src=x onerror='window.stolen = 1'>"


@pytest.fixture
def opened(browser: Any, full_board: Path, tmp_path: Path) -> Iterator[Any]:
    """The page of a board with one hostile row; fails if anything is written to the console or asked of a network."""
    rows = Board(full_board).check().rows
    name = next(name for name in rows if "standard-rag" in name)
    row = rows[name]
    agent = row.agent.model_copy(update={"name": HOSTILE, "note": HOSTILE})
    rows[HOSTILE] = row.model_copy(update={"agent": agent})
    file = tmp_path / "leaderboard.html"
    file.write_text(page(sections(Checked(rows=rows, refused=()), read_published(), Path("board"))))
    told: list[str] = []
    tab = browser.new_page()
    tab.on("console", lambda message: told.append(message.text))
    tab.on("pageerror", lambda error: told.append(str(error)))
    tab.on("request", lambda request: told.append(request.url) if not request.url.startswith(("file:", "data:")) else 0)
    tab.goto(file.as_uri())
    yield tab
    assert tab.evaluate("window.stolen") is None
    tab.close()
    assert told == []


def column(tab: Any, table: str, label: str) -> list[str]:
    """The visible cells of one column."""
    number = tab.locator(f"{table} th").all_text_contents().index(label) + 1
    cells: list[str] = tab.locator(f"{table} tbody tr:not([hidden]) td:nth-child({number})").all_text_contents()
    return cells


def first_table(tab: Any) -> str:
    assert tab.locator("table:not(.published)").count() == 1
    return "table:not(.published)"


def test_a_click_on_a_heading_sorts_and_a_second_one_turns_it_round(opened: Any) -> None:
    table = first_table(opened)
    button = opened.locator(f"{table} th button", has_text="searches/q")
    button.click()
    down = [float(cell) for cell in column(opened, table, "searches/q")]
    assert down == sorted(down, reverse=True) and len(set(down)) > 1
    assert opened.locator(f"{table} th[aria-sort=descending]").all_text_contents() == ["searches/q"]
    button.press("Enter")
    assert [float(cell) for cell in column(opened, table, "searches/q")] == sorted(down)
    opened.locator(f"{table} th button", has_text="agent").click()
    names = column(opened, table, "agent")
    assert names[-3:] == ["oracle", "random", "standard-rag"]
    assert opened.locator(f"{table} th[aria-sort]").count() == 1


def test_cells_without_a_value_stay_last_both_ways(opened: Any) -> None:
    printed = "table.published >> nth=2"
    number = opened.locator(printed).locator("th").all_text_contents().index("ACC_L")
    for _ in range(2):
        opened.locator(printed).locator("th button", has_text="ACC_L").click()
        cells = opened.locator(printed).locator(f"tbody td:nth-child({number + 1})").all_text_contents()
        assert cells[-2:] == ["-", "-"] and "-" not in cells[:-2] and len(cells) == 32


def test_the_filter_hides_the_rows_that_lack_its_words(opened: Any) -> None:
    opened.locator("#filter").fill("ORACLE")
    assert column(opened, first_table(opened), "agent") == ["oracle"]
    assert opened.locator("table.published tbody tr:visible").count() == 0
    opened.locator("#filter").fill("")
    assert len(column(opened, first_table(opened), "agent")) == 4


def test_hostile_words_are_shown_and_not_run(opened: Any) -> None:
    assert HOSTILE in column(opened, first_table(opened), "agent")
    assert opened.locator("main img, main script").count() == 0
    assert opened.locator("p", has_text=HOSTILE).count() == 1


def test_published_tables_look_unlike_ours(opened: Any) -> None:
    assert opened.locator("table.published").count() == 4
    styles = [
        opened.locator(table).first.evaluate("each => getComputedStyle(each).fontStyle")
        for table in ("table.published", "table:not(.published)")
    ]
    assert styles == ["italic", "normal"]

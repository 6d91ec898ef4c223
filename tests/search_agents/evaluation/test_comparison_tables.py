"""Tables of a comparison: what a reader of a row must know stands under its table."""

from __future__ import annotations

from search_agents.evaluation.comparison import comparison_tables

ROW = {"n": 5, "f1": 0.5, "em": 0.25}


def test_the_format_rate_is_called_so_and_not_the_share_that_was_answered() -> None:
    text = comparison_tables({"A-v0": {"r1-searcher": ROW | {"format_rate": 0.25, "stop_reasons": {"answered": 5}}}})
    header, _, row = (line.split("|")[1:-1] for line in text.splitlines() if line.startswith("|"))
    cells = {name.strip(): value.strip() for name, value in zip(header, row, strict=True)}
    assert cells["format rate"] == "0.25" and "answered" not in cells


def test_notes_stand_under_the_table_of_their_rows() -> None:
    noted = ROW | {"note": "checkpoint AIDC-AI/Marco-o1 not run: the model is tiny"}
    text = comparison_tables({"A-v0": {"standard-rag": ROW, "marco-o1": noted}, "B-v0": {"standard-rag": ROW}})
    first, second = text.split("## B-v0")
    assert first.rstrip().endswith("\n\nmarco-o1: checkpoint AIDC-AI/Marco-o1 not run: the model is tiny.")
    assert "checkpoint" not in second and second.startswith(": 5 questions")

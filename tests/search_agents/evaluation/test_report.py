"""Tables and example pages: right figures, and no text of a model or document is markup."""

from __future__ import annotations

from typing import Any

from search_agents.evaluation.report import examples_page, groups_table, results_table, scores_table, table
from search_agents.evaluation.transcript_log import transcript_record

from search_env.types import Action, ActionKind, Document, Hit, Question, StopReason, Transcript, Turn

SCORES = {"n": 4, "f1": 0.5, "em": 0.25, "search_rate": 1.0, "format_rate": 0.75, "searches_per_question": 2.0}


def transcript(answer: str, *, id: str = "q1", hops: int = 2, observation: str = "\n\nread me\n\n") -> Transcript:
    question = Question(id=id, text="Who *is* it?", answers=("Oslo",), kind="bridge", hops=hops)
    hit = Hit(document=Document(id="d", title="T", text="t"), score=1.0)
    search = Turn(
        segment="look <q> a <q>",
        action=Action(kind=ActionKind.SEARCH, text="a"),
        hits=(hit,),
        observation=observation,
    )
    end = Turn(segment=f"so {answer}", action=Action(kind=ActionKind.ANSWER, text=answer))
    return Transcript(question=question, turns=(search, end), stop_reason=StopReason.ANSWERED)


def page(before: str, after: str, **changes: Any) -> str:
    records = [transcript_record(transcript(answer, **changes)) for answer in (before, after)]
    return examples_page(records[:1], records[1:])


def test_a_table_is_markdown_whose_columns_line_up() -> None:
    lines = table(["name", "F1"], [["a|b\nc", "0.5"], ["long name", "10.25"]]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[1] == "|-----------|------:|"
    assert "a\\|b c" in lines[2]


def test_the_results_are_the_methods_in_order_and_then_the_floors() -> None:
    floors = {"majority_answer": {"f1": 0.1, "em": 0.1}}
    lines = results_table({"after": {**SCORES, "f1": 0.9}, "before": SCORES, "floors": floors}).splitlines()
    assert [line.split("|")[1].strip() for line in lines[2:]] == [
        "search agent, untrained",
        "search agent, trained",
        "floor: majority answer",
    ]
    assert [cell.strip() for cell in lines[3].split("|")[2:-1]] == ["0.900", "0.250", "1.00", "0.75", "2.00"]
    assert lines[4].split("|")[4].strip() == "-"


def test_scores_tell_their_interval_and_a_column_that_no_row_has_is_left_out() -> None:
    sure = {**SCORES, "f1": 0.9, "intervals": {"f1": [0.8, 0.95]}, "acc_l": None}
    rows = [
        [cell.strip() for cell in line.split("|")[1:4]]
        for line in scores_table([("a", sure), ("b", SCORES)]).splitlines()
    ]
    assert rows[0] == ["method", "F1", "95 %"]
    assert rows[2:] == [["a", "0.900", "0.800 to 0.950"], ["b", f"{SCORES['f1']:.3f}", "-"]]
    judged = scores_table([("a", {**sure, "acc_l": 0.75}), ("b", SCORES)])
    assert "ACC_L" not in scores_table([("a", sure)]) and "ACC_L" in judged and " 0.750 " in judged


def test_scores_of_no_valid_episode_are_dashes() -> None:
    none = {**dict.fromkeys(SCORES, 0.0), "n": 0}
    cells = [cell.strip() for cell in scores_table([("a", SCORES), ("b", none)]).splitlines()[3].split("|")[1:-1]]
    assert cells == ["b", *["-"] * 5]


def test_groups_are_told_beside_the_floors() -> None:
    summary = {
        "before": {"by_hops": {"1": {"n": 3, "f1": 0.1}}},
        "after": {"by_hops": {"1": {"n": 3, "f1": 0.9}, "2": {"n": 1, "f1": 0.5}}},
        "floors": {"random_answer": {"by_hops": {"1": {"n": 3, "f1": 0.2}}}},
    }
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in groups_table(summary, "by_hops").splitlines()]
    assert rows[0] == ["hops", "n", "F1 before", "F1 after", "F1 random answer"]
    assert rows[2:] == [["1", "3", "0.100", "0.900", "0.200"], ["2", "1", "-", "0.500", "-"]]


def test_examples_show_the_same_question_before_and_after() -> None:
    text = page("Bergen", "Oslo")
    assert "Right answer: Oslo (bridge, 2 hops)" in text
    assert "### Before training: answer: Bergen — F1 0.00, searches: 1" in text
    assert "### After training: answer: Oslo — F1 1.00, searches: 1" in text
    assert "    look <q> a <q>" in text


def test_examples_are_honest_about_what_is_still_wrong() -> None:
    assert "### After training: answer: Bergen — F1 0.00" in page("Bergen", "Bergen")


def test_text_of_models_and_documents_is_no_markup_and_no_control() -> None:
    text = page("x", "Oslo", observation="\n\n```\n# heading\n\x1b[31m<script>\n\n")
    assert "\\*is\\*" in text
    assert "\x1b" not in text
    assert all(line.startswith("    ") for line in text.splitlines() if "heading" in line or "script" in line)


def test_a_long_observation_is_shortened() -> None:
    assert len(page("x", "Oslo", observation="a" * 10_000)) < 4_000


def test_a_record_holds_the_answer_its_metrics_and_the_queries() -> None:
    record = transcript_record(transcript("Oslo"))
    assert (record["answer"], record["queries"], record["metrics"]["f1"]) == ("Oslo", ["a"], 1.0)
    assert record["question"]["id"] == "q1"

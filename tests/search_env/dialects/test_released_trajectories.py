"""The authors' released trajectories are real input: our dialect must read every one as they did."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from search_env.dialects import get_dialect
from search_env.types import ActionKind

FILE = Path(__file__).parents[4] / "shared" / "data" / "r1_searcher" / "eval_results" / "hotpotqa_qwen.jsonl"
DOCUMENTS = re.compile(r"\n\n<\|begin_of_documents\|>\n.*?<\|end_of_documents\|>\n\n", re.DOTALL)


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    if not FILE.exists():
        pytest.skip(f"the released trajectories are not at {FILE}")
    return [json.loads(line) for line in FILE.read_text(encoding="utf-8").splitlines()]


def test_every_trajectory_is_read_as_searches_and_one_answer_in_correct_format(rows):
    dialect = get_dialect("r1-searcher-pipes")
    searches = 0
    for row in rows:
        segments = DOCUMENTS.split(row["gen_text_store"])
        *before, last = [dialect.parse(segment) for segment in segments]
        assert {action.kind for action in before} <= {ActionKind.SEARCH}
        assert (last.kind, last.text) == (ActionKind.ANSWER, row["pred_ans"].strip())
        assert dialect.judge_format(segments).problems == ()
        searches += len(before)
    assert searches / len(rows) == pytest.approx(2.11, abs=0.005)


def test_the_documents_in_a_trajectory_would_break_its_format(rows):
    dialect = get_dialect("r1-searcher-pipes")
    searched = next(row["gen_text_store"] for row in rows if "begin_of_documents" in row["gen_text_store"])
    assert not dialect.judge_format([searched]).ok

"""The cases of tests/fixtures/scorer, which anyone's scorer can be held to."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from search_agents.evaluation.saved import read_saved
from search_agents.evaluation.scorer import score

from search_env.errors import DatasetError
from search_env.types import Action, ActionKind, Question, StopReason, Transcript, Turn

FOLDER = Path(__file__).parents[2] / "fixtures" / "scorer"
GOOD = {
    "r1-searcher": {"question": "Where?", "answer": "Oslo", "pred_ans": "Oslo"},
    "search-r1": {"input": "Question: Where?", "output": "<answer>Oslo</answer>", "gts": {"target": ["Oslo"]}},
    "flashrag": {"question": "Where?", "golden_answers": ["Oslo"], "output": {"pred": "Oslo"}},
    "ours": {
        "question": {"id": "q", "text": "Where?", "answers": ["Oslo"]},
        "turns": [],
        "stop_reason": "max_turns",
        "format": {"problems": []},
    },
}


def cases(*names: str) -> list[dict[str, Any]]:
    return [json.loads(line) for name in names for line in (FOLDER / f"{name}.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize("case", cases("full", "zero", "adversarial"), ids=lambda case: case["case"])
def test_an_episode_scores_what_the_contract_says(case: dict[str, Any]) -> None:
    given = case["answer"]
    last = () if given is None else (Turn(segment="", action=Action(kind=ActionKind.ANSWER, text=given)),)
    episode = Transcript(
        question=Question(id="q", text="?", answers=tuple(case["golds"])),
        turns=last,
        stop_reason=StopReason.ANSWERED if last else StopReason.MAX_TURNS,
    )
    for normalisation, expected in case["expected"].items():
        found = score([episode], normalisation).to_dict()
        assert {name: found[name] for name in expected} == pytest.approx(expected), normalisation
        assert {name: found["by_normalisation"][normalisation][name] for name in expected} == pytest.approx(expected)


def test_full_is_1_and_zero_is_0_in_every_metric_of_both_normalisations() -> None:
    for name, value in (("full", 1.0), ("zero", 0.0)):
        for case in cases(name):
            assert set(case["expected"]) == {"r1-searcher", "flashrag"}
            assert {figure for metrics in case["expected"].values() for figure in metrics.values()} == {value}


@pytest.mark.parametrize("case", cases("malformed"), ids=lambda case: f"{case['format']}: {case['case']}")
def test_a_malformed_row_is_named_by_file_and_line(case: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "saved.jsonl"
    file.write_text(f"{json.dumps(GOOD[case['format']])}\n{case['row']}\n", encoding="utf-8")
    with pytest.raises(DatasetError, match=re.escape(f"{file}:2: ") + ".*" + re.escape(case["error"])):
        read_saved(file, case["format"])


def test_the_cases_that_the_documentation_shows_are_among_them() -> None:
    shown = re.findall(r"^```json\n(.*?)\n```", (FOLDER / "README.md").read_text("utf-8"), flags=re.M | re.S)
    known = cases("full", "zero", "adversarial", "malformed")
    assert len(shown) == 2
    assert all(json.loads(line) in known for line in shown)

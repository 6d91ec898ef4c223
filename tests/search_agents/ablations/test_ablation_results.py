"""From the files of finished trainings to the table, the tests and what is said of the finding."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")
pytest.importorskip("matplotlib")

from search_agents.ablations.page import ablation_page
from search_agents.ablations.results import ablation_results
from search_agents.ablations.run import write_results
from search_agents.config import AblationConfig

from search_env.errors import ConfigError, RunError

from .conftest import TWO_ARMS, Write, transcript

CONFIG = AblationConfig.model_validate(TWO_ARMS)
N = 40


def episodes(right: int, searches: int = 1) -> list[Any]:
    """Of N questions the first `right` are answered right."""
    return [transcript(number, right=number < right, searches=searches) for number in range(N)]


def write_all(write: Write, left: Sequence[Any], right: Sequence[Any]) -> dict[tuple[str, int], Path]:
    """Both arms by the seeds 0, 1, …"""
    played = {"left": left, "right": right}
    return {(arm, seed): write(arm, seed, each) for arm in played for seed, each in enumerate(played[arm])}


def test_a_finding_that_the_figures_bear_out_holds(write_training: Write) -> None:
    folders = write_all(write_training, [episodes(30, 3), episodes(28, 3)], [episodes(10), episodes(12)])
    results = ablation_results(CONFIG, folders)
    left = results["arms"]["left"]
    assert left["metrics"]["em"] == {"mean": pytest.approx(29 / N), "low": 28 / N, "high": 30 / N}
    assert left["metrics"]["response_tokens"]["mean"] == 22 and left["metrics"]["answer_words"]["mean"] == 2
    assert left["f1_by_kind"]["even"]["high"] == 15 / 20
    f1, searches = results["claims"]
    assert f1["verdict"] == searches["verdict"] == "holds"
    assert f1["a"] == pytest.approx(11 / N) and f1["b"] == pytest.approx(29 / N) and 0 < f1["low"] < f1["difference"]
    assert f1["by_seed"] == {"0": pytest.approx(20 / N), "1": pytest.approx(16 / N)} and f1["p_value"] < 0.01
    text = ablation_page(results, curves="training.png")
    assert (
        "The paper's finding holds here. That left has a higher F1 than right holds here: 72.5 against 27.5, a" in text
    )
    assert "difference of +45.0 points (95 % interval over 40 questions +30.0 to +60.0" in text
    assert "seed by seed +50.0, +40.0" in text and "last word" not in text and "One seed" not in text
    assert "| left  |     2 | 72.5 (70.0 to 75.0) |" in text and "3.00" in text
    assert "| left                     | 50.0 / 60.0 / 70.5 |               - |" in text


def test_a_finding_that_comes_out_the_other_way_round_is_said_not_to_hold(write_training: Write) -> None:
    results = ablation_results(CONFIG, write_all(write_training, [episodes(5, 1)] * 2, [episodes(35, 2)] * 2))
    assert [claim["verdict"] for claim in results["claims"]] == ["reversed", "reversed"]
    text = ablation_page(results, curves=None)
    assert "The paper's finding does not hold here; the opposite does." in text
    assert "left has more searches a question than right is the other way round here: 1.00 against 2.00" in text


def test_a_difference_that_one_seed_contradicts_stays_open(write_training: Write) -> None:
    results = ablation_results(
        CONFIG, write_all(write_training, [episodes(40, 2), episodes(19, 2)], [episodes(10), episodes(20)])
    )
    f1, searches = results["claims"]
    assert f1["low"] > 0 and min(f1["by_seed"].values()) < 0 and f1["verdict"] == "open"
    assert searches["verdict"] == "holds"
    assert "holds here in part: of its 2 points: 1 hold, 1 stay open." in ablation_page(results, curves=None)


def test_arms_that_do_the_same_confirm_and_refute_nothing(write_training: Write) -> None:
    results = ablation_results(CONFIG, write_all(write_training, [episodes(20)], [episodes(20)]))
    text = ablation_page(results, curves=None)
    assert "can be neither confirmed nor refuted here" in text
    assert "One seed says nothing about how far" in text
    assert "2 of the 4 trainings are not finished" in text


def test_only_seeds_that_both_arms_have_are_compared(write_training: Write) -> None:
    folders = write_all(write_training, [episodes(30), episodes(0)], [episodes(10)])
    results = ablation_results(CONFIG, folders)
    assert results["claims"][0]["difference"] == pytest.approx(20 / N)
    assert results["arms"]["left"]["metrics"]["f1"]["mean"] == pytest.approx(15 / N)
    del folders["right", 0]
    alone = ablation_results(CONFIG, folders)
    assert {claim["verdict"] for claim in alone["claims"]} == {"missing"} and alone["comparisons"] == []
    assert "cannot be said yet" in ablation_page(alone, curves=None)
    assert "cannot be said yet" in ablation_page(ablation_results(CONFIG, {}), curves=None)


def test_an_invalid_episode_is_left_out_of_both_arms_and_counted(write_training: Write) -> None:
    broken = [transcript(0, right=False, valid=False), *episodes(40)[1:]]
    results = ablation_results(CONFIG, write_all(write_training, [broken], [episodes(20)]))
    assert results["claims"][0]["n"] == N - 1 and results["arms"]["left"]["metrics"]["em"]["mean"] == 1.0
    assert "Episodes left out because the retriever failed: left 1." in ablation_page(results, curves=None)


def test_arms_with_other_questions_are_refused(write_training: Write) -> None:
    folders = write_all(write_training, [episodes(20)], [episodes(20)[:-1]])
    with pytest.raises(ConfigError, match="evaluated on different questions"):
        ablation_results(CONFIG, folders)


def test_a_damaged_or_missing_evaluation_is_named(write_training: Write) -> None:
    folders = write_all(write_training, [episodes(20)], [episodes(20)])
    file = folders["left", 0] / "evaluations" / "after.jsonl"
    file.write_text('{"question": 3}\n')
    with pytest.raises(RunError, match=r"left/seed0/evaluations/after\.jsonl: a line is no transcript"):
        ablation_results(CONFIG, folders)
    file.unlink()
    with pytest.raises(RunError, match=r"after\.jsonl holds no transcript"):
        ablation_results(CONFIG, folders)


def test_results_page_curves_and_reports_are_written(write_training: Write, tmp_path: Path) -> None:
    folders = write_all(write_training, [episodes(30)] * 2, [episodes(10)] * 2)
    (folders["right", 1] / "summary.json").unlink()  # still training
    text = write_results(CONFIG, folders, tmp_path)
    assert text == (tmp_path / "ablation.md").read_text() and "3 of 4 trainings" in text
    results = json.loads((tmp_path / "ablation.json").read_text())
    assert list(results["arms"]["left"]["seeds"]) == ["0", "1"] and list(results["arms"]["right"]["seeds"]) == ["0"]
    assert "](training.png)" in text and (tmp_path / "training.png").stat().st_size > 5000
    for arm in ("left", "right"):
        assert (tmp_path / arm / "report.html").is_file() and (tmp_path / arm / "plots" / "training.svg").is_file()

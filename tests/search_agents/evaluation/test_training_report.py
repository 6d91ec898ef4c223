"""What the report of training runs holds, whom it lets in, and what it says of files that are damaged."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from search_agents.cli import main
from search_agents.evaluation.training_report import make_payload, make_report, read_run
from search_agents.evaluation.training_report import samples as samples_module

from search_env.errors import ConfigError, DatasetError, RunError
from search_env.types import StopReason

from .conftest import HOSTILE, metrics_row, transcript, write_run

Captured = pytest.CaptureFixture[str]


def payload_of(*folders: Path) -> dict[str, Any]:
    return make_payload([read_run(folder) for folder in folders])


def curves_of(payload: dict[str, Any]) -> dict[str, Any]:
    return {curve["key"]: curve for panel in payload["panels"] for curve in panel["curves"]}


def seeds(tmp_path: Path) -> list[Path]:
    return [
        write_run(tmp_path / f"seed{seed}", rows, seed=seed, evaluations={"before": 0.1, "after": after})
        for seed, after, rows in (
            (0, 0.7, [metrics_row(1, reward=0.1), metrics_row(2, "stage2", reward=0.2)]),
            (1, 0.8, [metrics_row(1, reward=0.3), metrics_row(2, reward=0.6), metrics_row(3, "stage2", reward=0.9)]),
        )
    ]


def test_the_seeds_of_a_recipe_are_a_mean_with_a_band_and_stage_ends_of_each(tmp_path: Path) -> None:
    payload = payload_of(*seeds(tmp_path))
    reward = curves_of(payload)["reward"]
    assert reward["mean"] == [0.2, 0.4, 0.9]
    assert (reward["low"], reward["high"], reward["runs"]) == ([0.1, 0.2, 0.9], [0.3, 0.6, 0.9], [2, 2, 1])
    assert [run["bounds"] for run in payload["runs"]] == [
        [{"place": 1.5, "stage": "stage2"}],
        [{"place": 2.5, "stage": "stage2"}],
    ]
    assert [run["seed"] for run in payload["runs"]] == [0, 1] and payload["differ"] == []
    assert payload["runs"][1]["steps"] == {"stage1": 2, "stage2": 1} and payload["runs"][1]["seconds"] == 180.0


def test_the_tables_hold_the_mean_over_runs_with_lowest_and_highest(tmp_path: Path) -> None:
    evaluation, training = payload_of(*seeds(tmp_path))["tables"]
    assert evaluation["title"].endswith("temperature 0 where none is named")
    assert evaluation["rows"] == [
        ["search agent, untrained", "20", "0.100", "0.250", "0.500", "-", "-", "-"],
        ["search agent, trained", "20", "0.750 (0.700 to 0.800)", "0.250", "0.500", "-", "-", "-"],
    ]
    assert training["rows"][0] == ["reward", "0.200 (0.100 to 0.300)", "0.550 (0.200 to 0.900)"]


def test_floors_and_further_temperatures_have_rows(tmp_path: Path) -> None:
    folder = write_run(
        tmp_path / "run", [metrics_row(1)], evaluations={"after": 0.7, "after-t1": 0.6, "rag_after": 0.2}
    )
    running = payload_of(folder)
    assert running["runs"][0]["finished"] is False
    (folder / "summary.json").write_text(json.dumps({"floors": {"random_answer": {"f1": 0.04, "em": 0.03}}}))
    payload = payload_of(folder)
    assert [row[0] for row in payload["tables"][0]["rows"]] == [
        "single-retrieval RAG, trained", "search agent, trained", "search agent, trained, temperature 1",
        "floor: random answer",
    ]  # fmt: skip
    assert payload["runs"][0]["finished"] is True


def test_runs_that_differ_in_more_than_the_seed_are_named_as_such(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", [metrics_row(1)], seed=0, learner={"lr": 1e-4})
    other = write_run(tmp_path / "other", [metrics_row(1)], seed=1, learner={"lr": 1e-3})
    assert payload_of(one, other)["differ"] == ["learner.lr"]


def test_a_run_given_twice_and_supervised_beside_sampled_runs_are_refused(tmp_path: Path) -> None:
    one = write_run(tmp_path / "one", [metrics_row(1)])
    with pytest.raises(ConfigError, match="given twice"):
        payload_of(one, tmp_path / "." / "one")
    row = {"step": 1, "stage": "epoch1", "loss": 1.0}
    other = write_run(tmp_path / "other", [row], sft={"epochs": 1})
    with pytest.raises(ConfigError, match=r"other is supervised and .*one is not"):
        payload_of(one, other)
    assert list(curves_of(payload_of(other))) == ["loss"]


def test_a_run_without_kl_shows_no_curve_of_it(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", [metrics_row(step, kl=None) for step in (1, 2)])
    payload = payload_of(folder)
    assert "kl" not in curves_of(payload) and "entropy" in curves_of(payload)
    assert not any("KL" in row[0] for row in payload["tables"][0]["rows"])


def test_the_best_and_the_worst_valid_episode_of_each_step_are_shown(tmp_path: Path) -> None:
    invalid = transcript("failed", None, StopReason.RETRIEVER_UNAVAILABLE)
    folder = write_run(
        tmp_path / "run",
        [metrics_row(1), metrics_row(2), metrics_row(3)],
        samples={
            1: [(transcript("middle"), 0.5), (transcript("best"), 1.0), (transcript("worst", "Lima"), -1.0)],
            2: [(transcript("alone"), 0.5), (invalid, 0.0)],
            3: [(invalid, 0.0)],
        },
    )
    (found,) = payload_of(folder)["samples"]
    assert [(step["step"], [each["question"].split()[2] for each in step["episodes"]]) for step in found] == [
        (1, ["best", "worst"]),
        (2, ["alone"]),
    ]
    worst = found[0]["episodes"][1]
    assert (worst["outcome"], worst["answer"], worst["f1"]) == ("wrong", "Lima", 0.0)
    assert (worst["reward"], worst["reward_parts"]) == (-1.0, {"f1": -1.0})
    assert worst["turns"][0]["observation"].startswith("(1) A painter.")


def test_of_very_many_steps_samples_are_spread_from_the_first_to_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples_module, "_MOST_STEPS", 4)
    played = {step: [(transcript("q"), 1.0)] for step in range(1, 11)}
    folder = write_run(tmp_path / "run", [metrics_row(step) for step in played], samples=played)
    assert [step["step"] for step in payload_of(folder)["samples"][0]] == [1, 4, 7, 10]


def test_the_page_holds_hostile_text_as_data_only(tmp_path: Path) -> None:
    hostile = transcript("hostile", HOSTILE, text=HOSTILE)
    folder = write_run(
        tmp_path / "<img src=x onerror=alert(1)>",
        [metrics_row(1), metrics_row(2, HOSTILE)],
        samples={1: [(hostile, 1.0)]},
        model={"path": HOSTILE},
    )
    page = make_report([read_run(folder)])
    assert page.lower().count("<script") == page.lower().count("</script>") == 2
    assert "<img" not in page and "<!--" not in page
    head, block = page.split('<script id="payload" type="application/json">')
    data = block.split("</script>")[0]
    assert "<" not in data and "onerror" in data
    payload = json.loads(data)
    assert payload["samples"][0][0]["episodes"][0]["answer"] == HOSTILE, "nothing of the text is lost"
    assert payload["runs"][0]["bounds"][0]["stage"] == payload["runs"][0]["model"] == HOSTILE
    assert "&lt;img src=x onerror=alert(1)&gt;" in head
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy.startswith("default-src 'none'; script-src 'sha256-") and "unsafe" not in policy
    assert "require-trusted-types-for 'script'" in policy


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"step": 2, "stage": "stage1", "rew', "Unterminated string"),
        ('{"step": 1, "stage": "stage1"}', "'step' must be a whole number above 1, got a number 1"),
        ('{"step": "2", "stage": "stage1"}', "'step' must be a whole number above 1, got text '2'"),
        ('{"step": 2}', "'stage' must be text"),
        ('{"step": 2, "stage": "stage1", "kl": NaN}', "'kl' must be a finite number or null"),
        ('{"step": 2, "stage": "stage1", "kl": "<b>"}', "'kl' must be a finite number or null, got text '<b>'"),
        ("[1, 2]", "must be a JSON object"),
        ("\udcff", "can't decode byte 0xff"),
    ],
)
def test_a_damaged_line_of_metrics_is_named_with_its_file(
    line: str, problem: str, tmp_path: Path, capsys: Captured
) -> None:
    folder = write_run(tmp_path / "run", [metrics_row(1)])
    file, out = folder / "metrics.jsonl", tmp_path / "report.html"
    whole = file.read_bytes()
    file.write_bytes(whole + f"{line}\n".encode(errors="surrogateescape") + b'{"step": 3, "stage": "stage1"}\n')
    assert main(["report", str(folder), "--out", str(out)]) == 2
    told = capsys.readouterr().err
    assert f"{file}:2: is no line of metrics: " in told and problem in told
    assert not out.exists()


def test_a_torn_last_line_is_left_out_as_the_run_itself_leaves_it_out(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", [metrics_row(1), metrics_row(2)])
    file = folder / "metrics.jsonl"
    file.write_bytes(file.read_bytes()[:-9])
    assert [row["step"] for row in read_run(folder).rows] == [1]


def test_a_damaged_sample_and_a_folder_that_is_no_run_are_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", [metrics_row(1)], samples={1: [(transcript("q"), 1.0)]})
    (folder / "episodes" / "step_000001.jsonl").write_text('{"segments": []}\n')
    with pytest.raises(DatasetError, match=r"step_000001\.jsonl:1: "):
        payload_of(folder)
    with pytest.raises(RunError, match="does not exist"):
        read_run(tmp_path / "nowhere")


def test_the_command_writes_page_and_plots_and_says_which(tmp_path: Path, capsys: Captured) -> None:
    pytest.importorskip("matplotlib")
    out = tmp_path / "made" / "seeds.html"
    assert main(["report", *map(str, seeds(tmp_path)), "--out", str(out)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{tmp_path / 'seed0'}: 2 steps, not finished" and lines[-1] == str(out)
    plots = out.parent / "seeds-plots"
    assert {file.name for file in plots.iterdir()} == {"training.png", "training.svg"}
    assert "<title>Training of seed0 and seed1 – search-env</title>" in out.read_text()
    assert main(["report", str(tmp_path / "seed0"), "--out", str(tmp_path)]) == 2
    assert "--out" in capsys.readouterr().err


def test_a_run_that_has_done_no_step_yet_is_reported(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "run", [], evaluations={"before": 0.1})
    payload = payload_of(folder)
    assert payload["panels"] == [] and [table["rows"][0][0] for table in payload["tables"]] == [
        "search agent, untrained"
    ]

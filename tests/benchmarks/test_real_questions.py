"""What RL gained is told against the best method, and only of what was asked alike."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")

from search_agents.evaluation.resampling import paired_difference

from benchmarks import evidence, real_questions

CONFIG: dict[str, Any] = {
    "env": {"retriever": "bm25", "dialect": "r1-searcher", "prompt": "instruct", "top_k": 3, "max_searches": 5,
            "max_turns": 7, "max_chars": 40000},
    "rollout": {"max_segment_tokens": 48, "max_episode_tokens": 4096},
    "evaluation": {"questions": 100, "temperatures": [0.0]},
    "model": {"path": "some/small-model"},
}  # fmt: skip


def comparison(folder: Path, scores: dict[str, dict[str, float]], n: int = 100, data: str = "d", **changed: Any) -> str:
    """A folder of `search-env bench methods` with the ACC_R of each method on each set."""
    sets = {
        name: {method: {"cem": score, "f1": score / 2, "n": n} for method, score in rows.items()}
        for name, rows in scores.items()
    }
    folder.mkdir()
    asked = [{"id": f"SearchQA-{name}", "data": f"{folder}/{data}"} for name in scores]
    config = {**CONFIG, "sets": asked, "env": {**CONFIG["env"], **changed}}
    (folder / "results.json").write_text(json.dumps({"config": config, "sets": sets}))
    return str(folder)


def run_folder(folder: Path, command: str, f1: float) -> str:
    """A finished run of one step."""
    (folder / "evaluations").mkdir(parents=True)
    scores = {"f1": f1, "cem": f1, "search_rate": 1.0, "format_rate": 0.5, "n": 50}
    machine = {"cores": 2, "processor": "Some processor"}
    meta = {"command": f"search-env {command} --data /some/where/two --out /x/y", "started": "2026-01-02T03:04:05Z"}
    (folder / "meta.json").write_text(json.dumps({**meta, "machine": machine}))
    (folder / "evaluations" / "before.json").write_text(json.dumps({**scores, "f1": 0.0, "elapsed": 60.0}))
    (folder / "evaluations" / "after.json").write_text(json.dumps({**scores, "elapsed": 600.0}))
    (folder / "summary.json").write_text("{}")
    row = {
        "step": 1,
        "elapsed": 540.0,
        "stage": "stage1",
        "reward": 0.5,
        "f1": f1,
        "search_rate": 1.0,
        "format_rate": 0.5,
    }
    (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")
    return str(folder)


def arguments(tmp_path: Path, rl: float, imitation: float, **changed: Any) -> list[str]:
    untrained = {"naive-generation": 0.1, "ircot": 0.2, "oracle": 1.0, "random": 0.9}
    sets = {"HotpotQA-v0": untrained, "MuSiQue-v0": {"ircot": 0.0, "oracle": 1.0}, "FictionalWiki-v0": untrained}
    found = {
        "--methods": comparison(tmp_path / "methods", sets),
        "--imitation": comparison(
            tmp_path / "warm", {name: {"r1-searcher": imitation} for name in ("HotpotQA-v0", "MuSiQue-v0")}
        ),
        "--rl": comparison(
            tmp_path / "rl", {name: {"r1-searcher": rl} for name in ("HotpotQA-v0", "MuSiQue-v0")}, **changed
        ),
    }
    runs = [run_folder(tmp_path / "sft-run", "sft", 0.25), run_folder(tmp_path / "rl-run", "train", 0.5)]
    return [*(word for pair in found.items() for word in pair), "--runs", *runs]


@pytest.fixture(autouse=True)
def episodes(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of the comparisons' episodes: two questions of each set."""

    def compare(a: Path, b: Path) -> SimpleNamespace:
        assert a.parts[-3] in ("warm", "untrained") and b.parts[-3] == "rl" and a.parts[-2:] == b.parts[-2:]
        return SimpleNamespace(metrics={"cem": paired_difference([0, 0], [1, 0]), "f1": paired_difference([0], [1])})

    monkeypatch.setattr(real_questions, "read_run", lambda folder: folder)
    monkeypatch.setattr(real_questions, "compare_runs", compare)


def test_gains_are_over_the_best_of_each_kind_and_bounds_are_no_methods(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(real_questions, "RESULTS", tmp_path)
    real_questions.main(
        [*arguments(tmp_path, rl=0.3, imitation=0.25, prompt="bare"), "--remark", "On a desk.", "--write"]
    )
    text = capsys.readouterr().out
    hotpot, musique = (line for line in text.splitlines() if ": ACC_R" in line)
    assert hotpot == (
        "HotpotQA: ACC_R 0.300, +20 % over the best without RL (imitation of annotated ways) where +48 % was the aim, "
        "+50 % over the best that is not trained (ircot), +20 % over the imitation that it began with."
    )
    assert "MuSiQue: ACC_R 0.300, +20 % over the best" in musique and "+0.300 over the best that is not" in musique
    assert "| HotpotQA | +0.500 (+0.000 to +1.000, p = 1) | +1.000 (" in text
    assert "oracle" not in text and "FictionalWiki" not in text and "On a desk." in text
    assert (tmp_path / "real-questions.md").read_text() + "\n" == text
    assert "0.300" in "\n".join(evidence._real(tmp_path))
    assert (
        "* imitation: `search-env sft --data two`, 2026-01-02, 10 minutes on 2 cores of Some processor, 1 steps" in text
    )
    assert "of the sets it was trained on: F1 0.000 before and 0.500 after, ACC_R 0.500 before" in text
    assert {file.name for file in (tmp_path / "real-questions").iterdir()} == {
        "imitation.jsonl",
        "rl.jsonl",
        "training.png",
        "training.svg",
    }


def test_an_earlier_model_of_the_rl_has_a_row_and_is_not_what_the_gain_is_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = arguments(tmp_path, rl=0.5, imitation=0.25)
    earlier = {name: {"r1-searcher": 0.4} for name in ("HotpotQA-v0", "MuSiQue-v0")}
    real_questions.main([*given, "--earlier", "7", comparison(tmp_path / "earlier", earlier)])
    text = capsys.readouterr().out
    assert "| RL after that, 7 steps      |          0.400 |" in text
    assert "HotpotQA: ACC_R 0.500, +100 % over the best without RL (imitation" in text


def test_rl_from_zero_stands_beside_the_untrained_model_on_a_page_of_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(real_questions, "RESULTS", tmp_path)
    given = arguments(tmp_path, rl=0.3, imitation=0.25)
    given[given.index("--imitation")] = "--untrained"
    (tmp_path / "warm").rename(tmp_path / "untrained")
    given[given.index("--untrained") + 1] = str(tmp_path / "untrained")
    given.remove(str(tmp_path / "sft-run"))
    real_questions.main([*given, "--name", "real-questions-zero", "--write"])
    text = capsys.readouterr().out
    assert "| RL from zero, 1 steps             |          0.300 |" in text and "imitation" not in text
    assert "HotpotQA: ACC_R 0.300, +20 % over the best without RL (r1-searcher, the prompt of the RL) where" in text
    assert "was the aim, +20 % over the model that it began with." in text
    assert "RL minus untrained, question by question" in text and "(real-questions-zero/training.png)" in text
    assert {file.name for file in (tmp_path / "real-questions-zero").iterdir()} == {
        "rl.jsonl",
        "training.png",
        "training.svg",
    }
    assert "### small-model on real questions" in "\n".join(evidence._real(tmp_path))


def test_imitation_of_the_same_model_stands_beside_rl_from_zero(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = arguments(tmp_path, rl=0.3, imitation=0.4)
    sets = {name: {"r1-searcher": 0.15} for name in ("HotpotQA-v0", "MuSiQue-v0")}
    real_questions.main([*given, "--untrained", comparison(tmp_path / "untrained", sets)])
    text = capsys.readouterr().out
    assert "| imitation of annotated ways       |          0.400 |" in text and "| RL from zero, 1 steps" in text
    assert (
        "HotpotQA: ACC_R 0.300, -25 % over the best without RL (imitation of annotated ways) where +48 % was the aim, "
        "+50 % over the best that is not trained (ircot), +100 % over the model that it began with."
    ) in text
    assert "RL minus untrained, question by question" in text and "* imitation: `search-env sft" in text


def test_what_rl_began_with_must_be_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = arguments(tmp_path, rl=0.3, imitation=0.1)
    begun = given.index("--imitation")
    with pytest.raises(SystemExit):
        real_questions.main(given[:begun] + given[begun + 2 :])
    assert "say what the RL began with: --imitation FOLDER or --untrained FOLDER" in capsys.readouterr().err


def test_a_run_that_was_stopped_is_told_as_such(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = arguments(tmp_path, rl=0.3, imitation=0.1)
    (tmp_path / "rl-run" / "summary.json").unlink()
    (tmp_path / "rl-run" / "evaluations" / "after.json").unlink()
    real_questions.main(given)
    text = capsys.readouterr().out
    assert "9 minutes on 2 cores of Some processor, 1 steps, then stopped; on 50 held-out questions" in text
    assert "F1 0.000 before, ACC_R 0.500 before" in text


def test_a_run_folder_too_many_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = arguments(tmp_path, rl=0.3, imitation=0.1)
    given[given.index("--imitation")] = "--untrained"
    with pytest.raises(SystemExit):
        real_questions.main(given)
    assert "--runs takes the run folders of RL here, not 2 folders" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"top_k": 5}, r"differ in env\.top_k; ask all by the same"),
        (
            {"n": 24},
            "not all were asked as many questions of HotpotQA-v0: naive-generation 100, .*RL after that, 1 steps 24",
        ),
        ({"data": "other"}, "the data of SearchQA-"),
    ],
)
def test_what_was_not_asked_alike_is_not_compared(tmp_path: Path, changed: dict[str, Any], problem: str) -> None:
    with pytest.raises(SystemExit, match=problem):
        real_questions.main(arguments(tmp_path, rl=0.3, imitation=0.1, **changed))

"""Each training of an ablation is done once: finished ones are left, stopped ones resumed."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")
pytest.importorskip("torch")

from search_agents.ablations import run as ablation
from search_agents.ablations.subsets import write_subsets
from search_agents.cli import main
from search_agents.config import AblationConfig, TrainConfig, parse_setting
from search_agents.config.ablation import SubsetSection
from search_agents.evaluation.transcript_log import transcript_record
from search_agents.learning import train as driver
from search_agents.learning.run_folder import RunFolder

from search_env import datasets
from search_env.errors import ConfigError, RunError

from .conftest import TWO_ARMS, transcript

SMALL = (
    "stages.0.max_steps=1", "stages.1.max_steps=1", "stages.0.until=null", "learner.prompts_per_batch=2",
    "learner.group_size=2", "learner.minibatch_size=4", "evaluation.questions=4", "evaluation.batch_size=4",
    "evaluation.temperatures=[0.0]", "evaluation.baselines=false", "run.threads=1",
)  # fmt: skip
CONFIG = AblationConfig.model_validate(TWO_ARMS)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is trained or resumed, each in an instant; the second training is stopped."""
    done: list[str] = []

    def finish(folder: RunFolder) -> None:
        (folder.path / "metrics.jsonl").write_text("")
        (folder.path / "evaluations").mkdir(exist_ok=True)
        folder.write_evaluation("after", {}, [transcript_record(transcript(number, right=True)) for number in range(4)])
        (folder.path / "summary.json").write_text("{}")

    def train(config: Any, *, out: Path, display: str) -> None:
        folder = RunFolder.create(out, config, {})
        done.append(f"train {out.parent.name} {out.name}")
        if len(done) == 2:
            raise KeyboardInterrupt("go on with: search-env resume it")
        finish(folder)

    def resume(folder: RunFolder, *, display: str) -> None:
        done.append(f"resume {folder.path.parent.name} {folder.path.name}")
        finish(folder)

    monkeypatch.setattr(ablation, "train", train)
    monkeypatch.setattr(ablation, "resume", resume)
    return done


def run(
    out: Path,
    *settings: str,
    tell: Callable[[str], None] = lambda line: None,
    config: AblationConfig = CONFIG,
    reuse: Sequence[Path] = (),
) -> str:
    given = [parse_setting(each) for each in settings]
    return ablation.run_ablation(config, given, out, source="mine.yaml", tell=tell, reuse=reuse)


def test_after_a_stop_the_same_command_does_what_is_left(trained: list[str], tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt, match="go on with the same command"):
        run(tmp_path)
    assert trained == ["train left seed0", "train right seed0"]
    assert "1 of 4 trainings" in (tmp_path / "ablation.md").read_text()
    told: list[str] = []
    text = run(tmp_path, tell=told.append)
    assert trained[2:] == ["resume right seed0", "train left seed1", "train right seed1"]
    assert told[0] == "left seed 0 (1 of 4): finished before" and "4 of 4 trainings" in text
    assert run(tmp_path) == text and len(trained) == 5


def test_a_training_with_other_settings_is_not_taken_for_this_one(trained: list[str], tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    for place in ("left", "right"):  # first the finished training, then the one that was stopped
        with pytest.raises(RunError, match=f"the arm '{place}' as it is asked for now differs .* learner.group_size"):
            run(tmp_path, "learner.group_size=8")
        (tmp_path / place).rename(tmp_path / f"{place}-before")
    assert trained == ["train left seed0", "train right seed0"]


def test_a_training_that_another_ablation_has_finished_is_copied_if_it_has_the_very_settings(
    trained: list[str], tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    with pytest.raises(RunError, match="no ablation has finished a training there"):
        run(second, reuse=[first])
    with pytest.raises(KeyboardInterrupt):
        run(first)
    run(first)
    done = len(trained)
    arms = [{"name": "same"}, {"name": "other", "overrides": {"learner.lr": 2e-3}}]
    claims = [{"metric": "f1", "higher": "same", "lower": "other"}]
    paper = {"source": "a paper", "finding": "No."}
    config = AblationConfig.model_validate({**TWO_ARMS, "paper": paper, "arms": arms, "claims": claims})
    told: list[str] = []
    assert "4 of 4 trainings" in run(second, config=config, reuse=[first], tell=told.append)
    assert trained[done:] == ["train other seed0", "train other seed1"]
    assert told[0] == f"same seed 0 (1 of 4): copied from {first / 'right' / 'seed0'}"
    written = (second / "same" / "seed1" / "evaluations" / "after.jsonl").read_text()
    assert written == (first / "right" / "seed1" / "evaluations" / "after.jsonl").read_text()


def test_a_wrong_arm_is_told_before_anything_is_trained(trained: list[str], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="stage3"):
        run(tmp_path, "stages.1.reward=stage3")
    assert trained == [] and not list(tmp_path.iterdir())


def test_subsets_hold_the_questions_they_name_beside_the_whole_set(tmp_path: Path) -> None:
    config = TrainConfig.model_validate({"env": {"data": "people=20,questions=200"}})
    subsets = {"long": SubsetSection(hops=(3, 4)), "chains": SubsetSection(kinds=("single", "compositional"))}
    folder = tmp_path / "data"
    write_subsets(subsets, config, folder)
    whole = datasets.load("fictional-wiki", split="train", data="people=20,questions=200")
    for split, belongs in {
        "train": lambda question: True,
        "long": lambda question: question.hops in (3, 4),
        "chains": lambda question: question.kind in ("single", "compositional"),
    }.items():
        written = datasets.load("custom", split=split, data=folder)
        assert [each.id for each in written.questions] == [each.id for each in whole.questions if belongs(each)]
        assert written.corpus_fingerprint == whole.corpus_fingerprint
    assert datasets.load("custom", split="test", data=folder).questions
    before = (folder / "long.jsonl").stat().st_mtime_ns
    write_subsets(subsets, config, folder)
    assert (folder / "long.jsonl").stat().st_mtime_ns == before and list(tmp_path.iterdir()) == [folder]
    with pytest.raises(ConfigError, match="holds other questions than this ablation is about"):
        write_subsets({"long": SubsetSection(hops=(4,))}, config, folder)
    with pytest.raises(ConfigError, match=r"subsets\.far holds none of the .* hops \[1, 2, 3, 4\]"):
        write_subsets({"far": SubsetSection(hops=(9,))}, config, tmp_path / "other")


def test_the_command_trains_stops_goes_on_and_compares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [word for each in SMALL for word in ("--set", each)]
    out = tmp_path / "out"
    command = ["bench", "ablation", "mask", "--seeds", "0", *settings, "--display", "plain", "--out", str(out)]
    step = driver._Run._step

    def stop(this: Any) -> None:
        step(this)
        if this._config.learner.mask_documents is False:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(driver._Run, "_step", stop)
        assert main(command) == 130
    assert "go on with the same command" in capsys.readouterr().err
    first = (out / "masked" / "seed0" / "summary.json").stat().st_mtime_ns
    assert not (out / "unmasked" / "seed0" / "summary.json").exists()
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "masked seed 0 (1 of 2): finished before" in said and "4 held-out questions, 2 of 2 trainings" in said
    assert (out / "masked" / "seed0" / "summary.json").stat().st_mtime_ns == first
    results = json.loads((out / "ablation.json").read_text())
    assert results["arms"]["masked"]["metrics"]["response_tokens"]["mean"] > 0
    assert [claim["n"] for claim in results["claims"]] == [4, 4]

"""What becomes of a run's folder when the run is made longer; test_train_end_to_end.py trains such runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from search_agents.config import SFTConfig, TrainConfig, load_config, parse_flags
from search_agents.learning import run_folder
from search_agents.learning.lengthen import lengthen
from search_agents.learning.run_folder import RunFolder, write_json

from search_env.errors import RunError


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    """A finished run of 8 and 20 steps, the first stage cut short by its `until`."""
    made = RunFolder.create(tmp_path / "run", load_config(TrainConfig, [], parse_flags([])), {})
    for step in range(1, 24):
        made.append_metrics({"step": step, "stage": "stage1" if step <= 3 else "stage2"})
    for name in ("before", "stage1", "after", "after-t0", "rag_before", "rag_after"):
        made.write_evaluation(name, {"f1": 0.5}, [])
    made.checkpoint(23).mkdir(parents=True)
    (made.checkpoint(23) / "COMPLETE").touch()
    write_json(made.path / "summary.json", {})
    return made


def test_only_the_end_is_forgotten(folder: RunFolder) -> None:
    lengthen(folder, 30)
    config = folder.config()
    assert isinstance(config, TrainConfig) and [stage.max_steps for stage in config.stages] == [8, 30]
    assert not folder.finished and len(folder.metrics()) == 23 and folder.checkpoints()
    kept = {file.name for file in (folder.path / "evaluations").iterdir()}
    assert kept == {f"{name}.{kind}" for name in ("before", "stage1", "rag_before") for kind in ("json", "jsonl")}


def test_as_many_steps_as_before_change_nothing(folder: RunFolder) -> None:
    lengthen(folder, 20)
    assert folder.finished and folder.evaluation("after")


def test_a_stop_in_between_is_mended_by_the_same_command(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:

        def full(file: Path, value: object) -> None:
            if file.name == "meta.json":
                raise OSError("no space left on device")
            write_json(file, value)  # type: ignore[arg-type]

        patch.setattr(run_folder, "write_json", full)
        with pytest.raises(OSError, match="no space"):
            lengthen(folder, 30)
    with pytest.raises(RunError, match=r"stages\.1\.max_steps"):
        folder.config()
    lengthen(folder, 30)
    assert folder.config() == folder.started_with()


def test_an_edited_config_is_refused_and_nothing_is_lost(folder: RunFolder) -> None:
    stored = json.loads((folder.path / "config.json").read_text())
    stored["learner"]["lr"] = 1.0
    write_json(folder.path / "config.json", stored)
    with pytest.raises(RunError, match=r"differs .* in: learner\.lr\."):
        lengthen(folder, 30)
    assert folder.finished and folder.evaluation("after")


def test_an_imitation_has_epochs(tmp_path: Path) -> None:
    config = load_config(SFTConfig, [], parse_flags(["--sft.trajectories", "shown", "--model.path", "tiny"]))
    folder = RunFolder.create(tmp_path / "run", config, {})
    with pytest.raises(RunError, match=r"epochs.*search-env sft --model"):
        lengthen(folder, 30)

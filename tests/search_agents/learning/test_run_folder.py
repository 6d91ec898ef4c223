"""The run folder: whole or absent, each step once, and never another run's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from search_agents.config import TrainConfig, load_config, parse_flags
from search_agents.learning.run_folder import RunFolder, write_json, write_text

from search_env.errors import RunError


def make(path: Path, *flags: str) -> RunFolder:
    return RunFolder.create(path, load_config(TrainConfig, [], parse_flags(flags)), {"versions": {"python": "3"}})


def test_a_new_folder_holds_the_config_and_what_is_known_of_the_machine(tmp_path: Path) -> None:
    folder = make(tmp_path / "run", "--run.seed", "7")
    assert json.loads((folder.path / "config.json").read_text())["run"]["seed"] == 7
    assert json.loads((folder.path / "meta.json").read_text())["versions"] == {"python": "3"}
    assert RunFolder.open(folder.path).config().run.seed == 7


def test_without_a_path_the_folder_is_named_after_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = RunFolder.create(None, load_config(TrainConfig, [], parse_flags(["--run.name", "mine"])), {})
    assert folder.path.parent == Path("outputs")
    assert folder.path.name.startswith("mine-")


def test_an_empty_folder_is_taken_and_a_full_one_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    make(tmp_path / "run")
    with pytest.raises(RunError, match=r"not empty.*--out.*search-env resume"):
        make(tmp_path / "run")


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(RunError, match="exists"):
        make(tmp_path / "run")
    assert (tmp_path / "run").read_text() == "mine"


@pytest.mark.parametrize(("make_it", "message"), [(False, "does not exist"), (True, r"no run folder: config\.json")])
def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, make_it: bool, message: str) -> None:
    if make_it:
        (tmp_path / "run").mkdir()
    with pytest.raises(RunError, match=message):
        RunFolder.open(tmp_path / "run")


def test_a_config_edited_after_the_start_is_refused_with_the_keys(tmp_path: Path) -> None:
    folder = make(tmp_path / "run")
    stored = json.loads((folder.path / "config.json").read_text())
    stored["learner"]["lr"] = 1.0
    stored["stages"][1]["max_steps"] = 99
    write_json(folder.path / "config.json", stored)
    with pytest.raises(RunError, match=r"config\.json differs .* in: learner\.lr, stages\.1\.max_steps\."):
        folder.config()


def test_a_broken_config_is_told_with_its_file(tmp_path: Path) -> None:
    folder = make(tmp_path / "run")
    (folder.path / "config.json").write_text("{")
    with pytest.raises(RunError, match=r"config\.json: is not JSON"):
        folder.config()


def test_metrics_come_back_in_order(tmp_path: Path) -> None:
    folder = make(tmp_path / "run")
    for step in (1, 2, 3):
        folder.append_metrics({"step": step, "note": "é\u2028\ud800"})
    assert [row["step"] for row in folder.metrics()] == [1, 2, 3]
    assert folder.metrics()[0]["note"] == "é\u2028\ud800"


def test_a_metrics_file_torn_at_any_byte_loses_only_its_last_line(tmp_path: Path) -> None:
    """Risk 12: metrics that are cut at any byte of their last line."""
    folder = make(tmp_path / "run")
    for step in (1, 2):
        folder.append_metrics({"step": step, "reward": 0.5})
    file = folder.path / "metrics.jsonl"
    whole = file.read_bytes()
    first = whole.index(b"\n") + 1
    for cut in range(first, len(whole)):
        file.write_bytes(whole[:cut])
        assert [row["step"] for row in folder.metrics()] == [1]


def test_steps_that_will_be_done_again_are_forgotten(tmp_path: Path) -> None:
    folder = make(tmp_path / "run")
    for step in (1, 2, 3):
        folder.append_metrics({"step": step})
        folder.write_episodes(step, [{"reward": 1.0}])
    with (folder.path / "metrics.jsonl").open("a") as stream:
        stream.write('{"step": 4, "rew')
    folder.forget_after(2)
    folder.append_metrics({"step": 3})
    assert [row["step"] for row in folder.metrics()] == [1, 2, 3]
    assert sorted(file.name for file in (folder.path / "episodes").iterdir()) == [
        "step_000001.jsonl",
        "step_000002.jsonl",
    ]


def checkpoint(folder: RunFolder, step: int, *, complete: bool = True) -> Path:
    path = folder.checkpoint(step)
    path.mkdir(parents=True)
    (path / "model.safetensors").write_bytes(b"weights")
    if complete:
        (path / "COMPLETE").write_text("")
    return path


def test_only_complete_checkpoints_count_and_the_newest_stay(tmp_path: Path) -> None:
    folder = make(tmp_path / "run")
    first, second, third = (checkpoint(folder, step) for step in (5, 10, 100))
    checkpoint(folder, 105, complete=False)
    assert folder.checkpoints() == [first, second, third]
    folder.keep_newest_checkpoints(2)
    assert folder.checkpoints() == [second, third]
    assert not first.exists()


def test_an_evaluation_counts_only_when_its_scores_are_written(tmp_path: Path) -> None:
    folder = make(tmp_path / "run")
    assert folder.evaluation("before") is None
    folder.write_evaluation("before", {"f1": 0.5}, [{"answer": "x"}])
    assert folder.evaluation("before") == {"f1": 0.5}
    assert folder.transcripts("before") == [{"answer": "x"}]


def test_every_start_is_noted(tmp_path: Path) -> None:
    folder = make(tmp_path / "run")
    folder.add_attempt({"step": 0})
    folder.add_attempt({"step": 5})
    assert json.loads((folder.path / "meta.json").read_text())["attempts"] == [{"step": 0}, {"step": 5}]


def test_a_folder_is_removed_only_while_nothing_was_done_in_it(tmp_path: Path) -> None:
    folder = make(tmp_path / "run")
    folder.add_attempt({"step": 0})
    folder.remove_if_unused()
    assert folder.path.exists()
    unused = make(tmp_path / "other")
    unused.remove_if_unused()
    assert not unused.path.exists()


def test_time_spent_is_that_of_the_last_step_or_evaluation(tmp_path: Path) -> None:
    folder = make(tmp_path / "run")
    assert folder.seconds_spent() == 0.0
    folder.append_metrics({"step": 1, "elapsed": 5.0})
    folder.write_evaluation("stage1", {"elapsed": 7.5}, [])
    assert folder.seconds_spent() == 7.5


def test_a_file_that_cannot_be_written_whole_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "summary.json"
    write_text(file, "old")

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space"):
        write_text(file, "new")
    assert file.read_text() == "old"


def test_a_summary_never_holds_a_number_that_json_has_not(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "summary.json", {"f1": float("nan")})

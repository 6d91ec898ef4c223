"""A run that is stopped by anything, from SIGKILL to a full disk, and gone on with, ends as if nothing had happened."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import pickle
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("ray")
pytest.importorskip("torch")

import torch
from ray.exceptions import ActorDiedError
from search_agents.cli import main
from search_agents.learning import learner, train
from search_agents.learning.learner_group import EpisodeLearnerGroup
from search_agents.learning.run_folder import RunFolder

from search_env.episode import EpisodeState
from search_env.vector import SearchQAVectorEnv

KILLED_RUN = Path(__file__).with_name("killed_run.py")
POINTS = ("rollout", "scoring", "backward", "optimizer", "mid-save", "before-the-mark", "log", "evaluation")
SETTINGS = {
    "run.threads": 1,
    "run.checkpoint-every": 1,
    "run.sampled-groups": 1,
    "learner.prompts-per-batch": 2,
    "learner.group-size": 2,
    "learner.minibatch-size": 2,
    "rollout.max-segment-tokens": 24,
    "rollout.max-episode-tokens": 400,
    "rollout.num-envs": 4,
    "stages.0.max-steps": 2,
    "stages.1.max-steps": 1,
    "evaluation.questions": 2,
    "evaluation.temperatures": "[1.0]",
    "evaluation.baselines": "false",
}
TRAIN = ["train", "--config", "fictional-wiki", *(f"--{key}={value}" for key, value in SETTINGS.items())]
LEARNER_APART = [*TRAIN, "--learner.num-learners=1"]


@pytest.fixture(autouse=True)
def one_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEARCH_ENV_CACHE", str(tmp_path_factory.getbasetemp() / "index-of-these-runs"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never stopped."""
    out = tmp_path_factory.mktemp("finished") / "run"
    with contextlib.redirect_stdout(io.StringIO()):
        assert main([*TRAIN, "--out", str(out)]) == 0
    return out


def outcome(run: Path) -> dict[str, Any]:
    """All that a run leaves, without the times."""
    timeless = ("seconds", "elapsed", "sample_seconds", "learn_seconds")
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {
        "metrics": [{key: value for key, value in row.items() if key not in timeless} for row in rows],
        "weights": hashlib.sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest(),
        "episodes": {file.name: file.read_text() for file in (run / "episodes").iterdir()},
        "transcripts": {file.name: file.read_text() for file in (run / "evaluations").glob("*.jsonl")},
        "checkpoints": sorted(folder.name for folder in (run / "checkpoints").iterdir()),
    }


def killed_at(point: str, *argv: str) -> None:
    """Run a command in a process of its own, which does not come to its end."""
    done = subprocess.run(
        [sys.executable, str(KILLED_RUN), point, *argv], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr


def go_on(run: Path, finished: Path) -> None:
    """Resume to the end, and compare."""
    assert main(["resume", str(run)]) == 0
    assert [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()] == [1, 2, 3]
    assert outcome(run) == outcome(finished)


def test_a_run_that_is_killed_again_and_again_ends_as_one_that_was_not(finished: Path, tmp_path: Path) -> None:
    """Risk 11: SIGKILL while a checkpoint is written, in the middle of a line, and before a checkpoint is marked."""
    out = tmp_path / "run"
    killed_at("mid-save", *TRAIN, "--out", str(out))
    assert [path.name for path in RunFolder.open(out).checkpoints()] == ["step_000001"]
    killed_at("log", "resume", str(out))
    assert (out / "metrics.jsonl").read_text().endswith('{"step": 2, "rew')
    killed_at("before-the-mark", "resume", str(out))
    assert [path.name for path in RunFolder.open(out).checkpoints()] == ["step_000001", "step_000002"]
    go_on(out, finished)


@pytest.mark.soak
@pytest.mark.parametrize("point", POINTS)
def test_a_run_that_is_killed_anywhere_ends_as_one_that_was_not(point: str, finished: Path, tmp_path: Path) -> None:
    """Risk 11: SIGKILL at eight points of a run."""
    killed_at(point, *TRAIN, "--out", str(tmp_path / "run"))
    go_on(tmp_path / "run", finished)


@pytest.mark.soak
@pytest.mark.parametrize("point", ["backward", "mid-save"])
def test_a_run_that_is_killed_with_a_batch_in_flight_ends_as_one_that_was_not(point: str, tmp_path: Path) -> None:
    """Risk 11: SIGKILL while a runner samples the next batch with weights that the learner no longer has."""
    runs = (tmp_path / "finished", tmp_path / "run")
    train = [*TRAIN, "--rollout.num-env-runners=1", "--rollout.max-staleness=1", "--stages.1.max-steps=2"]
    killed_at(point, *train, "--out", str(runs[1]))
    commands = [[*train, "--out", str(runs[0])], ["resume", str(runs[1])]]
    for command in commands:  # in processes of their own, whose Ray ends with them
        script = "import sys; from search_agents.cli import main; sys.exit(main(sys.argv[1:]))"
        subprocess.run([sys.executable, "-c", script, *command], check=True, timeout=300)
    rows = [json.loads(line) for line in (runs[1] / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["staleness"]) for row in rows] == [(1, 0), (2, 1), (3, 1), (4, 1)]
    assert outcome(runs[1]) == outcome(runs[0])


class Evil:
    """Leaves a file behind when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return Path.touch, (self.mark,)


def test_a_run_holds_no_pickle_and_reads_none(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Risk 9: what a run leaves, and what somebody has put into its folder before it is gone on with."""
    files = [path for path in finished.rglob("*") if path.is_file() and path.name != "COMPLETE"]
    suffixes = {path.suffix for path in files if ".tfevents." not in path.name}  # protocol buffers
    assert suffixes <= {".json", ".jsonl", ".safetensors", ".md", ".html", ".png", ".svg", ".jinja"}

    out = tmp_path / "run"
    interrupted(out, monkeypatch, [signal.SIGTERM])
    for name in ("algorithm_state.pkl", "optimizer.pt", "pytorch_model.bin", "class_and_ctor_args.pkl"):
        for folder in (out, *RunFolder.open(out).checkpoints()):
            (folder / name).write_bytes(pickle.dumps(Evil(tmp_path / "mark")))
    assert main(["resume", str(out)]) == 0
    assert outcome(out)["weights"] == outcome(finished)["weights"]
    assert not (tmp_path / "mark").exists()


def interrupted(out: Path, monkeypatch: pytest.MonkeyPatch, signals: list[int]) -> None:
    """Start a run, or go on with it, and send signals during a rollout."""
    step, left = SearchQAVectorEnv.step, list(signals)
    with monkeypatch.context() as patch:

        def stepping(env: Any, actions: Any) -> Any:
            found = step(env, actions)
            if (out / "evaluations" / "before.json").is_file():
                while left:
                    os.kill(os.getpid(), left.pop())
            return found

        patch.setattr(SearchQAVectorEnv, "step", stepping)
        assert main(["resume", str(out)] if out.exists() else [*TRAIN, "--out", str(out)]) == 130
    assert left == []


def test_a_signal_lets_the_step_be_saved_and_a_second_one_spoils_nothing(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Risk 20: SIGTERM and SIGINT during a rollout."""
    out, before = tmp_path / "run", signal.getsignal(signal.SIGTERM)  # Ray may have left one of its own
    interrupted(out, monkeypatch, [signal.SIGTERM])
    assert [path.name for path in RunFolder.open(out).checkpoints()] == ["step_000001"]
    assert f"search-env resume {out}" in capsys.readouterr().err
    interrupted(out, monkeypatch, [signal.SIGINT, signal.SIGTERM])
    assert [path.name for path in RunFolder.open(out).checkpoints()] == ["step_000001"]
    go_on(out, finished)
    assert signal.getsignal(signal.SIGTERM) == before


def test_sigterm_stops_an_evaluation_as_ctrl_c_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Risk 20: SIGTERM during an evaluation, whose answers are kept."""
    out, acts = tmp_path / "evaluation", []
    act = EpisodeState.act
    argv = ["eval", "--method", "random", "--limit", "4", "--evaluation.batch-size", "1", "--out", str(out)]
    with monkeypatch.context() as patch:

        def acting(state: EpisodeState, segment: str) -> Any:
            acts.append(1)
            if len(acts) == 3:
                os.kill(os.getpid(), signal.SIGTERM)
            return act(state, segment)

        patch.setattr(EpisodeState, "act", acting)
        assert main(argv) == 130
    assert f"search-env resume {out}" in capsys.readouterr().err
    (log,) = out.glob("transcripts-*.jsonl")
    kept = log.read_text()
    assert kept.count("\n") >= 1 and not (out / "result.json").exists()
    assert main(["resume", str(out)]) == 0
    assert log.read_text().startswith(kept) and log.read_text().count("\n") == 4


@pytest.mark.soak
def test_the_processes_of_a_run_end_with_it(tmp_path: Path) -> None:
    """Risk 20: no process of a run with env runners of their own outlives a SIGTERM."""
    mark = f"run-{os.getpid()}-{time.time_ns()}"
    command = [sys.executable, "-c", "import sys; from search_agents.cli import main; sys.exit(main(sys.argv[1:]))"]
    environment = {**os.environ, "THIS_RUN": mark, "RAY_USAGE_STATS_ENABLED": "0"}
    argv = [*TRAIN, "--stages.0.max-steps=50", "--rollout.num-env-runners=2", "--out", str(tmp_path / "run")]
    with subprocess.Popen([*command, *argv], env=environment, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        for line in run.stdout:
            if line.startswith("step "):
                break
        assert len(processes_of(mark)) > 3
        run.send_signal(signal.SIGTERM)
        run.stdout.read()
        assert run.wait(120) == 130
    for _ in range(100):
        if not processes_of(mark):
            break
        time.sleep(0.2)
    assert processes_of(mark) == []
    assert RunFolder.open(tmp_path / "run").checkpoints()


def processes_of(mark: str) -> list[str]:
    """The processes with a mark in their environment."""
    found = []
    for environment in Path("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if mark.encode() in environment.read_bytes():
                found.append((environment.parent / "cmdline").read_text().replace("\0", " "))
    return found


def full_fsync(times: int) -> Callable[[int], None]:
    fsync, calls = os.fsync, []

    def called(descriptor: int) -> None:
        calls.append(1)
        if len(calls) >= times:
            raise OSError(28, "No space left on device")
        fsync(descriptor)

    return called


def full_save_file(*_: Any) -> None:
    from safetensors import SafetensorError

    raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")


def test_a_full_disk_is_one_message_and_what_was_done_is_kept(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Risk 14: the disk is full when a checkpoint is written, and when anything else is."""
    out = tmp_path / "run"
    step = train._Run._step

    def full_from_the_second_step(patch: pytest.MonkeyPatch, owner: Any, name: str, value: Any) -> None:
        def stepping(run: Any) -> None:
            if run._algorithm.steps_done == 1:
                patch.setattr(owner, name, value)
            step(run)

        patch.setattr(train._Run, "_step", stepping)

    for owner, name, value in ((learner, "save_file", full_save_file), (os, "fsync", full_fsync(4))):
        with monkeypatch.context() as patch:
            full_from_the_second_step(patch, owner, name, value)
            assert main(["resume", str(out)] if out.exists() else [*TRAIN, "--out", str(out)]) == 1
        err = capsys.readouterr().err
        assert err.count("\n") == 1 and "no space is left on the disk" in err and f"search-env resume {out}" in err
        assert [path.name for path in RunFolder.open(out).checkpoints()] == ["step_000001"]
        assert not [path for path in out.rglob("*") if ".tmp" in path.name]
    go_on(out, finished)


def test_a_disk_that_will_be_too_small_is_told_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Risk 14: a warning before the work, and not after it."""

    class Usage:
        free = 3 << 20

    monkeypatch.setattr("shutil.disk_usage", lambda _: Usage)
    monkeypatch.setattr(train._Run, "_evaluate", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    assert main([*TRAIN, "--out", str(tmp_path / "run")]) == 130
    told = capsys.readouterr().out
    assert re.search(r"warning: 0\.0 GiB are free in .*/run, and the run needs about 0\.\d GiB", told)
    Usage.free = 1 << 40
    assert main(["resume", str(tmp_path / "run")]) == 130
    assert "warning" not in capsys.readouterr().out


def die_at_backward(learner: Any) -> None:
    """Make the process of a learner end as abruptly as a power cut does, at its next gradient."""
    torch.Tensor.backward = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.usefixtures("ray_cluster")
def test_a_learner_that_is_killed_in_mid_step_goes_on_from_the_last_checkpoint_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Risk 11: SIGKILL of a learner in its first step, and in a later one; the run ends as one without that."""
    assert main([*LEARNER_APART, "--out", str(tmp_path / "undisturbed")]) == 0
    capsys.readouterr()
    update, updates = EpisodeLearnerGroup.update_on, []

    def update_on(group: EpisodeLearnerGroup, rows: Any, **settings: Any) -> Any:
        updates.append(1)
        if len(updates) in (1, 4):  # of step 1, 1 again, 2, 3
            group.on_first_learner(die_at_backward)
        return update(group, rows, **settings)

    monkeypatch.setattr(EpisodeLearnerGroup, "update_on", update_on)
    assert main([*LEARNER_APART, "--out", str(tmp_path / "killed")]) == 0
    told = capsys.readouterr().out
    assert "going on from the start, for there is no checkpoint yet (restart 1 of 3)" in told
    assert "going on from the checkpoint step_000002 (restart 1 of 3)" in told
    assert len(updates) == 5
    assert outcome(tmp_path / "killed") == outcome(tmp_path / "undisturbed")


def test_a_learner_that_dies_again_and_again_ends_the_run_with_a_word_about_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Risk 11: beginning again has an end, and what was saved is kept."""
    begun: list[Any] = []

    def go(run: Any) -> str:
        begun.append(run)
        if len(begun) == 2:
            checkpoint = run._folder.checkpoint(1)
            checkpoint.mkdir(parents=True)
            (checkpoint / "COMPLETE").touch()
        run._folder.add_attempt({})
        raise ActorDiedError()

    monkeypatch.setattr(train._Run, "go", go)
    out = tmp_path / "run"
    assert main([*LEARNER_APART, "--out", str(out)]) == 2
    err = capsys.readouterr().err
    assert "died 4 times with no new checkpoint in between" in err and f"search-env resume {out}" in err
    assert len(begun) == 5, "a new checkpoint begins the count anew"
    assert (out / "checkpoints" / "step_000001").is_dir()


def test_a_death_after_ctrl_c_ends_the_run_and_does_not_begin_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Risk 20: the user has asked to stop, and the learner dies before the step is done."""
    calls: list[str] = []

    class Dying:
        steps_done, finished, stage = 0, False, "stage1"

        def train(self) -> None:
            calls.append("train")
            os.kill(os.getpid(), signal.SIGINT)
            raise ActorDiedError()

        def stop(self) -> None:
            calls.append("stop")

    monkeypatch.setattr(train._Run, "_open", lambda run: setattr(run, "_algorithm", Dying()))
    monkeypatch.setattr(train._Run, "_evaluate", lambda *_, **__: None)
    out = tmp_path / "run"
    assert main([*LEARNER_APART, "--out", str(out)]) == 130
    assert calls == ["train"]
    assert f"search-env resume {out}" in capsys.readouterr().err

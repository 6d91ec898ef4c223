"""A disk that is full at any moment: what was whole stays whole, and nothing is left half-written."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("ray")
pytest.importorskip("torch")

from search_agents.cli.command import main
from search_agents.config import TrainConfig
from search_agents.learning.checkpoint import save_checkpoint
from search_agents.learning.run_folder import RunFolder, append_jsonl, read_jsonl, write_json

WRITES = ((os, "fsync"), (Path, "replace"), (Path, "rename"), (Path, "touch"), (Path, "write_text"))


class Algorithm:
    """As much of one as a checkpoint asks for."""

    def __init__(self, step: int) -> None:
        self._step = step
        self.learner_group = SimpleNamespace(on_first_learner=lambda function: function(self))

    def save_to_folder(self, folder: str) -> None:
        for name in ("model.safetensors", "optimizer.safetensors"):
            (Path(folder) / name).write_text("weights " * 1000)

    def get_progress(self) -> dict[str, int]:
        return {"steps_done": self._step}

    def get_sampler(self) -> None:
        return None


def run(path: Path) -> None:
    """All that a short run writes."""
    folder = RunFolder.create(path, TrainConfig(), {"command": "x"})
    folder.add_attempt({"after_step": 0})
    folder.write_evaluation("before", {"f1": 0.5, "elapsed": 1.0}, [{"id": "q"}])
    for step in (1, 2, 3):
        folder.append_metrics({"step": step, "elapsed": 1.0})
        folder.write_episodes(step, [{"id": "q"}])
        save_checkpoint(Algorithm(step), folder.checkpoint(step))  # type: ignore[arg-type]
        folder.keep_newest_checkpoints(2)
    write_json(path / "summary.json", {"f1": 1.0})


def full_at(patch: pytest.MonkeyPatch, number: int) -> list[int]:
    """Let every write fail from one on; returns the list that counts them."""
    counted: list[int] = []

    def failing(original: Callable[..., Any]) -> Callable[..., Any]:
        def called(*given: Any, **named: Any) -> Any:
            counted.append(1)
            if len(counted) >= number:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return original(*given, **named)

        return called

    for owner, name in WRITES:
        patch.setattr(owner, name, failing(getattr(owner, name)))
    return counted


def test_whichever_write_fails_what_was_whole_stays_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Risk 14: ENOSPC at the k-th write of a run, for all k."""
    with monkeypatch.context() as patch:
        counted = full_at(patch, 10**6)
        run(tmp_path / "counted")
        total = len(counted)
    assert total > 40
    for number in range(1, total + 1):
        path = tmp_path / f"run-{number}"
        with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
            full_at(patch, number)
            run(path)
        assert not [left for left in path.rglob("*") if ".tmp" in left.name], number
        for file in path.rglob("*.json"):
            json.loads(file.read_text())
        rows = read_jsonl(path / "metrics.jsonl")
        assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
        if not (path / "config.json").is_file():
            continue
        for checkpoint in RunFolder.open(path).checkpoints():
            assert (checkpoint / "model.safetensors").read_text() == "weights " * 1000
            assert json.loads((checkpoint / "state.json").read_text())["steps_done"] == int(checkpoint.name[-1])
        assert len(RunFolder.open(path).checkpoints()) >= min(len(rows) - 1, 1)


@pytest.mark.parametrize("room", range(0, 30, 3))
def test_a_line_that_fits_in_part_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
    """Risk 14: a disk that takes the first bytes of a line; risk 12: and the next line begins on its own."""
    file = tmp_path / "log.jsonl"
    append_jsonl(file, {"step": 1})
    opened = Path.open

    class Full:
        """A file on a disk with so many bytes left."""

        def __init__(self, stream: Any) -> None:
            self._stream, self._room = stream, room

        def __enter__(self) -> Full:
            return self

        def __exit__(self, *_: Any) -> None:
            self._stream.close()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._stream, name)

        def write(self, data: Any) -> int:
            taken = min(len(data), self._room)
            if not taken:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self._room -= taken
            return int(self._stream.write(data[:taken]))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda self, *given, **named: Full(opened(self, *given, **named)))
        with pytest.raises(OSError, match="No space left"):
            append_jsonl(file, {"step": 2, "text": "x" * 30})
    assert file.read_text() == '{"step": 1}\n'
    append_jsonl(file, {"step": 2})
    assert [row["step"] for row in read_jsonl(file)] == [1, 2]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_the_command_says_so_in_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: int
) -> None:
    """Risk 14: one message, and exit code 1."""

    def full(*_: Any, **__: Any) -> None:
        raise OSError(code, os.strerror(code), str(tmp_path / "page.html"))

    monkeypatch.setattr("search_agents.cli.list.run", full)
    assert main(["list"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("search-env: error: no space is left on the disk") and told.count("\n") == 1
    assert "page.html" in told and "make room" in told

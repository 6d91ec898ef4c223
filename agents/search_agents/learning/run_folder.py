"""The folder of a run: one place for each thing that a run leaves.

::

    outputs/<name>-<time>/
    ├── config.json            the resolved config
    ├── meta.json              versions, machine, commit, every start of the run
    ├── metrics.jsonl          one line a step, written at once, each step exactly once
    ├── episodes/              step_000010.jsonl: best and worst episodes of some groups (not in supervised training)
    ├── checkpoints/           step_000010/: complete or absent, never half
    ├── evaluations/           before.json: scores; before.jsonl: the transcripts behind them
    ├── model/                 the trained model, safetensors
    ├── plots/                 PNG and SVG
    ├── tensorboard/           event files of TensorBoard, one for each start of the run
    ├── examples.md            the same questions before and after
    ├── report.html            curves, final figures and sampled episodes on one page
    └── summary.json           written last: its presence says that the run is finished

A file is either whole or absent: JSON is written beside its place and renamed, and a
torn last line of a JSONL file is dropped when it is read.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from search_agents.config import SFTConfig, TrainConfig, differing_keys
from search_env.errors import RunError

__all__ = ["RunConfig", "RunFolder", "append_jsonl", "read_jsonl", "write_json", "write_jsonl", "write_text"]

Json = dict[str, Any]
RunConfig = TrainConfig | SFTConfig
"""What a run folder is made for."""

# A lone surrogate has no UTF-8; written as \udXXX it is valid inside a JSON string.
_SURROGATES = "backslashreplace"


class RunFolder:
    """A run's files. Make one with `create` or `open`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path | None, config: RunConfig, meta: Mapping[str, Any]) -> RunFolder:
        """Make the folder of a new run.

        Args:
            path: Where; None makes ``outputs/<name>-<time>``.
            config: The resolved config, stored as it is.
            meta: What is known of the machine and the software.

        Raises:
            RunError: If the folder exists and holds anything.
        """
        if path is None:
            path = Path("outputs") / f"{config.run.name}-{time.strftime('%Y%m%d-%H%M%S')}"
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise RunError(
                f"{path} exists and is not empty. Give another folder with --out, "
                f"or go on with the run in it: search-env resume {path}"
            )
        path.mkdir(parents=True, exist_ok=True)
        folder = cls(path)
        # The second copy of the config shows, at resume, whether config.json was edited.
        stored = config.model_dump(mode="json")
        write_json(path / "meta.json", {**meta, "config": stored, "attempts": []})
        write_json(path / "config.json", stored)
        return folder

    @classmethod
    def open(cls, path: Path, *, printed_by: str = "`search-env train` or `search-env sft`") -> RunFolder:
        """Open the folder of an existing run.

        Args:
            path: The folder.
            printed_by: For the message: the commands whose folders can be given.

        Raises:
            RunError: If it is none.
        """
        missing = [name for name in ("config.json", "meta.json") if not (path / name).is_file()]
        if missing:
            what = "does not exist" if not path.exists() else f"is no run folder: {missing[0]} is missing"
            raise RunError(f"{path} {what}. Give the folder that {printed_by} printed last.")
        return cls(path)

    def config(self) -> RunConfig:
        """The stored config, checked to be the one that the run was started with.

        Raises:
            RunError: If it was changed since; names the keys.
        """
        self.require_same(self._read("config.json"), "config.json")
        return self.started_with()

    def started_with(self) -> RunConfig:
        """The config that the run was started with, whatever has become of config.json since.

        Raises:
            RunError: If another version of search-env wrote it.
        """
        stored = self.meta()["config"]
        try:
            return (SFTConfig if "sft" in stored else TrainConfig).model_validate(stored)
        except ValueError as error:
            raise RunError(
                f"{self.path / 'meta.json'}: was written by another version of search-env: {error}"
            ) from None

    def change_config(self, config: RunConfig) -> None:
        """Make the run one of another config, whose end is still to come.

        A stop in between leaves a run that asks for the same change once more.

        Raises:
            RunError: If config.json was edited since the run was started; names the keys.
        """
        stored = config.model_dump(mode="json")
        if self._read("config.json") != stored:
            self.require_same(self._read("config.json"), "config.json")
        elif self.meta()["config"] == stored:
            return
        (self.path / "summary.json").unlink(missing_ok=True)
        for file in self.path.glob("evaluations/*after*"):
            file.unlink()
        write_json(self.path / "config.json", stored)
        write_json(self.path / "meta.json", {**self.meta(), "config": stored})

    def require_same(self, config: Mapping[str, Any], source: str) -> None:
        """Refuse a config other than the one that the run was started with.

        Raises:
            RunError: Names every key that differs.
        """
        started = self.meta()["config"]
        keys = differing_keys(started, config)
        if keys:
            raise RunError(
                f"cannot resume {self.path}: {source} differs from the config that the run was started with in: "
                f"{', '.join(keys)}. Resume without changes, or start a new run with --out FOLDER."
            )

    def meta(self) -> Json:
        """What is known of the run's origin; see `search_agents.learning.provenance`."""
        return self._read("meta.json")

    def add_attempt(self, attempt: Mapping[str, Any]) -> None:
        """Note one more start of the run in meta.json."""
        meta = self.meta()
        write_json(self.path / "meta.json", {**meta, "attempts": [*meta["attempts"], dict(attempt)]})

    def remove_if_unused(self) -> None:
        """Delete the folder of a run that never came to work: no attempt is noted, so it holds only its config."""
        if not self.meta()["attempts"]:
            shutil.rmtree(self.path)

    def append_metrics(self, row: Mapping[str, Any]) -> None:
        """Add the line of one step, in a single write."""
        append_jsonl(self.path / "metrics.jsonl", row)

    def metrics(self) -> list[Json]:
        """The lines of all steps, in order; a torn last line is left out."""
        return read_jsonl(self.path / "metrics.jsonl")

    def forget_after(self, step: int) -> None:
        """Drop the metrics and episodes of the steps after `step`: they will be done again."""
        rows = [row for row in self.metrics() if row["step"] <= step]
        write_jsonl(self.path / "metrics.jsonl", rows)
        for file in self.path.glob("episodes/step_*.jsonl"):
            if _step_of(file) > step:
                file.unlink()

    def write_episodes(self, step: int, episodes: Iterable[Mapping[str, Any]]) -> None:
        """Write the sampled episodes of one step."""
        write_jsonl(self.path / "episodes" / f"step_{step:06d}.jsonl", episodes)

    def checkpoint(self, step: int) -> Path:
        """Where the checkpoint of a step lies."""
        return self.path / "checkpoints" / f"step_{step:06d}"

    def checkpoints(self) -> list[Path]:
        """The complete checkpoints, oldest first."""
        return sorted(mark.parent for mark in self.path.glob("checkpoints/step_*/COMPLETE"))

    def keep_newest_checkpoints(self, number: int) -> None:
        """Delete all complete checkpoints but the newest; a link is left alone, for what it leads to is not ours."""
        for folder in self.checkpoints()[:-number]:
            if folder.is_symlink():
                continue
            # Without its mark the folder no longer counts, wherever the deletion is cut short.
            (folder / "COMPLETE").unlink()
            shutil.rmtree(folder)

    def write_evaluation(self, name: str, result: Mapping[str, Any], transcripts: Iterable[Mapping[str, Any]]) -> None:
        """Write an evaluation: transcripts first, the scores last."""
        write_jsonl(self.path / "evaluations" / f"{name}.jsonl", transcripts)
        write_json(self.path / "evaluations" / f"{name}.json", result)

    def evaluation(self, name: str) -> Json | None:
        """The scores of an evaluation, or None if it has not been done."""
        file = Path("evaluations") / f"{name}.json"
        return self._read(str(file)) if (self.path / file).is_file() else None

    def transcripts(self, name: str) -> list[Json]:
        """The transcripts of an evaluation."""
        return read_jsonl(self.path / "evaluations" / f"{name}.jsonl")

    def seconds_spent(self) -> float:
        """Wall-clock time that the run had taken when it wrote its last step or evaluation."""
        evaluations = (json.loads(file.read_text(encoding="utf-8")) for file in self.path.glob("evaluations/*.json"))
        return max((done["elapsed"] for done in (*self.metrics(), *evaluations)), default=0.0)

    @property
    def finished(self) -> bool:
        """Whether the run has come to its end."""
        return (self.path / "summary.json").is_file()

    def _read(self, name: str) -> Json:
        try:
            value: Json = json.loads((self.path / name).read_text(encoding="utf-8"))
        except ValueError as error:
            raise RunError(f"{self.path / name}: is not JSON: {error}. Start a new run.") from None
        return value


def write_json(file: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file whole or not at all."""
    write_text(file, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_jsonl(file: Path, values: Iterable[Mapping[str, Any]]) -> None:
    """Write a JSONL file whole or not at all."""
    write_text(file, "".join(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n" for value in values))


def append_jsonl(file: Path, value: Mapping[str, Any]) -> None:
    """Add a line to a JSONL file; it is on the disk when this returns, and no part of it is there when it cannot be."""
    line = json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n"
    left = memoryview(line.encode(errors=_SURROGATES))
    with file.open("ab", buffering=0) as stream:
        end = stream.tell()
        try:
            while left:  # a disk that is almost full takes a part
                left = left[stream.write(left) :]
            os.fsync(stream.fileno())
        except OSError:
            stream.truncate(end)
            raise


def write_text(file: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.tmp")
    beside.unlink(missing_ok=True)  # what a stopped run left; a link would lead the text elsewhere
    try:
        with beside.open("x", encoding="utf-8", errors=_SURROGATES) as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        beside.replace(file)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def read_jsonl(file: Path) -> list[Json]:
    """The objects of a JSONL file of our own; an unfinished last line is left out."""
    if not file.is_file():
        return []
    text = file.read_text(encoding="utf-8", errors="replace")
    return [json.loads(line) for line in text[: text.rfind("\n") + 1].split("\n") if line]


def _step_of(path: Path) -> int:
    return int(path.stem.removeprefix("step_"))

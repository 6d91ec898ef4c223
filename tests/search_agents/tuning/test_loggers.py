"""What trials have reported outlives Tune's copies of it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("ray")

from pyarrow.fs import LocalFileSystem
from search_agents.tuning.loggers import JSONLogger


class Trial:
    """With a checkpoint; its files are written in one folder and stored in another."""

    config: dict[str, Any] = {}  # noqa: RUF012
    checkpoint = "one"

    def __init__(self, folder: Path) -> None:
        self.local_path = str(folder / "written")
        self.storage = SimpleNamespace(trial_fs_path=str(folder / "stored"), storage_filesystem=LocalFileSystem())

    def init_local_path(self) -> None:
        Path(self.local_path).mkdir(exist_ok=True)


def test_a_trial_that_starts_again_keeps_the_reports_that_are_not_stored_yet(tmp_path: Path) -> None:
    trial, logger = Trial(tmp_path), JSONLogger()
    trial.init_local_path()
    (tmp_path / "stored").mkdir()
    (tmp_path / "stored" / "result.json").write_text('{"training_iteration": 0}\n')
    logger.log_trial_start(trial)  # after a stop: nothing is written here yet
    logger.log_trial_result(1, trial, {"training_iteration": 1})
    logger.log_trial_start(trial)  # as pbt moved it: what is stored lacks the first iteration
    logger.log_trial_result(2, trial, {"training_iteration": 2})
    logger.log_trial_end(trial)
    rows = [json.loads(line) for line in (tmp_path / "written" / "result.json").read_text().splitlines()]
    assert [row["training_iteration"] for row in rows] == [0, 1, 2]

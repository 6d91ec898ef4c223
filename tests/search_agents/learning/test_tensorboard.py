"""Event files as TensorBoard reads them: framed, flushed, and with the steps that are done again taken back."""

from __future__ import annotations

import platform
import struct
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tensorboardX")

from search_agents.learning.tensorboard import ScalarLog
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.record_writer import masked_crc32c


def events(file: Path) -> list[Any]:
    """The events of a file, their checksums verified."""
    data, found = file.read_bytes(), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        body = data[12 : 12 + length]
        assert struct.unpack("<I", data[8:12])[0] == masked_crc32c(data[:8])
        assert struct.unpack("<I", data[12 + length : 16 + length])[0] == masked_crc32c(body)
        found.append(Event.FromString(body))
        data = data[16 + length :]
    return found


def scalars(file: Path) -> dict[tuple[str, int], float]:
    return {
        (value.tag, event.step): round(value.simple_value, 6) for event in events(file) for value in event.summary.value
    }


def test_each_number_is_a_scalar_and_is_on_the_disk_at_once(tmp_path: Path) -> None:
    with ScalarLog(tmp_path / "tensorboard", after_step=0) as log:
        log.write("train", {"step": 3, "stage": "stage1", "reward": 0.25, "kl": None, "n": 2, "by_hops": {}}, step=3)
        (file,) = (tmp_path / "tensorboard").iterdir()
        assert scalars(file) == {("train/reward", 3): 0.25, ("train/n", 3): 2.0}, "before the file is closed"
        log.write("evaluation-t0", {"f1": 0.5}, step=4)
    assert scalars(file)["evaluation-t0/f1", 4] == 0.5
    assert events(file)[0].file_version == "brain.Event:2"
    assert "tfevents" in file.name and platform.node() not in file.name


def test_a_later_start_takes_back_the_steps_that_it_does_again(tmp_path: Path) -> None:
    for after_step in (0, 5):
        with ScalarLog(tmp_path, after_step=after_step):
            pass
    first, second = sorted(tmp_path.iterdir())
    for file, step in ((first, 1), (second, 6)):
        _, start = events(file)
        assert (start.step, start.session_log.status) == (step, SessionLog.START)

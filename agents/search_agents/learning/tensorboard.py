"""The figures of a run as TensorBoard reads them: ``tensorboard --logdir outputs`` shows every run below it.

The events are those of TensorBoard's protocol, framed by tensorboardX, which RLlib brings.
Its ``SummaryWriter`` is not used: it puts the name of the machine into the name of the file,
and writes from a thread of its own, so that a run that is killed would lose its last steps.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["ScalarLog"]


class ScalarLog:
    """Writes scalars into a new event file; each `write` is on the disk when it returns.

    Args:
        folder: Where the event files of the run lie, one for each of its starts.
        after_step: The step that this start goes on after: what earlier files say of later steps counts no more.
    """

    def __init__(self, folder: Path, *, after_step: int) -> None:
        from tensorboardX import RecordWriter
        from tensorboardX.proto import event_pb2, summary_pb2

        self._event, self._session, self._summary = event_pb2.Event, event_pb2.SessionLog, summary_pb2.Summary
        folder.mkdir(exist_ok=True)
        # TensorBoard reads the files of a folder in the order of their names.
        self._records = RecordWriter(str(folder / f"events.out.tfevents.{time.time():.6f}.search-env"))
        self._add(file_version="brain.Event:2")
        self._add(step=after_step + 1, session_log=self._session(status=self._session.START))

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the file."""
        self._records.close()

    def write(self, group: str, figures: Mapping[str, Any], *, step: int) -> None:
        """Write the numbers among some figures as ``group/name``, all but the step; what is no number is left out."""
        numbers = {name: value for name, value in figures.items() if name != "step" and type(value) in (int, float)}
        values = [self._summary.Value(tag=f"{group}/{name}", simple_value=value) for name, value in numbers.items()]
        self._add(step=step, summary=self._summary(value=values))

    def _add(self, **fields: Any) -> None:
        self._records.write(self._event(wall_time=time.time(), **fields).SerializeToString())
        self._records.flush()

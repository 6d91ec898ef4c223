"""Ctrl-C during training: the step in progress is finished first, so that it can be saved.

A checkpoint in the middle of a step would hold weights and counters that do not belong
together. A second Ctrl-C does not wait; the newest checkpoint is then where the run
goes on.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["StopRequest", "deferred_interrupt"]


class StopRequest:
    """Whether the user has asked to stop."""

    def __init__(self, notice: Callable[[], None]) -> None:
        self.made = False
        self._notice = notice

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Signal handler: note the first request, obey the second at once.

        Raises:
            KeyboardInterrupt: At the second request.
        """
        if self.made:
            raise KeyboardInterrupt
        self.made = True
        self._notice()


@contextmanager
def deferred_interrupt(notice: Callable[[], None]) -> Iterator[StopRequest]:
    """Within the block, Ctrl-C and SIGTERM only set `StopRequest.made` when they come for the first time.

    Args:
        notice: Called at the first request, to tell the user what happens.
    """
    request = StopRequest(notice)
    if threading.current_thread() is not threading.main_thread():
        yield request  # only the main thread can take signals
        return
    before = {number: signal.signal(number, request.handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

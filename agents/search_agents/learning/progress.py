"""What a run shows while it works: one line a step, and on a terminal a live bar below the lines.

The lines are the same in both displays, so a log reads like the terminal did. Names of
stages and paths come out of recipes that others may have written, so no line commands
the terminal.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Protocol

from search_env.render import visible

__all__ = ["DISPLAYS", "Progress", "make_progress", "step_line"]

DISPLAYS = ("auto", "rich", "plain")

_POLICY_COLUMNS = (
    ("reward", "reward", "{:.3f}"),
    ("f1", "f1", "{:.3f}"),
    ("search", "search_rate", "{:.2f}"),
    ("format", "format_rate", "{:.2f}"),
    ("searches/q", "searches_per_question", "{:.2f}"),
    ("tokens", "response_tokens", "{:.0f}"),
    ("kl", "kl", "{:.4f}"),
    ("entropy", "entropy", "{:.2f}"),
)
_SUPERVISED_COLUMNS = (
    ("loss", "loss", "{:.4f}"),
    ("entropy", "entropy", "{:.2f}"),
    ("grad", "grad_norm", "{:.2f}"),
    ("tokens", "trained_tokens", "{:.0f}"),
)


class Progress(Protocol):
    """Tells the user what is going on."""

    def phase(self, text: str) -> None:
        """Say what begins now."""
        ...

    def step(self, row: Mapping[str, Any]) -> None:
        """Show the metrics of a training step."""
        ...

    def count(self, done: int, text: str) -> None:
        """Show how much is done of something that is no training."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was found."""
        ...


def make_progress(display: str, max_steps: int) -> Progress:
    """Choose the display.

    Args:
        display: One of `DISPLAYS`; ``auto`` is ``rich`` on a terminal and ``plain`` elsewhere.
        max_steps: The most steps that the run may take, or whatever else is counted.
    """
    if display == "rich" or (display == "auto" and sys.stdout.isatty()):
        return _RichProgress(max_steps)
    return _PlainProgress(max_steps)


def step_line(row: Mapping[str, Any], max_steps: int) -> str:
    """The metrics of one step as a line; a metric that is missing is shown as ``-``."""
    columns = _SUPERVISED_COLUMNS if "trained_tokens" in row else _POLICY_COLUMNS
    cells = [f"{label} {_format(row.get(key), layout)}" for label, key, layout in columns]
    return f"step {row['step']:>3}/{max_steps}  {row['stage']:8}  {'  '.join(cells)}  {row['seconds']:.1f} s"


class _PlainProgress:
    def __init__(self, max_steps: int) -> None:
        self._max_steps = max_steps

    def phase(self, text: str) -> None:
        sys.stdout.write(f"{visible(text)}\n")
        sys.stdout.flush()

    def step(self, row: Mapping[str, Any]) -> None:
        self.phase(step_line(row, self._max_steps))

    def count(self, done: int, text: str) -> None:
        self.phase(text)

    def close(self) -> None:
        pass


class _RichProgress:
    def __init__(self, max_steps: int) -> None:
        from rich import progress

        self._max_steps = max_steps
        columns = (
            progress.SpinnerColumn(),
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
        )
        self._bar = progress.Progress(*columns)
        self._task = self._bar.add_task("starting", total=max_steps)
        self._bar.start()

    def phase(self, text: str) -> None:
        # The bar names what runs; an indented line is only a detail of it.
        if not text.startswith(" "):
            self._bar.update(self._task, description=visible(text)[:60])
        self._bar.console.print(visible(text), markup=False, highlight=False, soft_wrap=True)

    def step(self, row: Mapping[str, Any]) -> None:
        self._bar.update(self._task, description=visible(f"training, {row['stage']}"))
        self.count(row["step"], step_line(row, self._max_steps))

    def count(self, done: int, text: str) -> None:
        self._bar.update(self._task, completed=done)
        self._bar.console.print(visible(text), markup=False, soft_wrap=True)

    def close(self) -> None:
        self._bar.stop()


def _format(value: float | None, layout: str) -> str:
    return "-" if value is None else layout.format(value)

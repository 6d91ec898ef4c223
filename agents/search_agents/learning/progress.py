"""What a run shows while it works: one line a step, and on a terminal a live table and bar below the lines.

The lines are the same in both displays, so a log reads like the terminal did. Whatever
stands in them is made inert: no text can command the terminal or be taken for markup.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from search_env.render import visible

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

__all__ = ["DISPLAYS", "Progress", "make_progress", "sparkline", "step_line"]

DISPLAYS = ("auto", "rich", "plain", "none")

_SPARKS = "▁▂▃▄▅▆▇█"
_SPARKLINE_WIDTH = 40
_DESCRIPTION_WIDTH = 60
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

    def expect(self, max_steps: int) -> None:
        """Say how many steps the run may take, now that it is known better."""
        ...

    def step(self, row: Mapping[str, Any]) -> None:
        """Show the metrics of a training step."""
        ...

    def count(self, done: int, text: str) -> None:
        """Show how much is done of something that is no training."""
        ...

    def advance(self, done: int, text: str) -> None:
        """Show the same on the bar alone, for what comes too often for a line each."""
        ...

    def close(self) -> None:
        """Leave the terminal as it was found."""
        ...


def make_progress(display: str, max_steps: int) -> Progress:
    """Choose the display.

    Args:
        display: One of `DISPLAYS`; ``auto`` is ``rich`` on a terminal and ``plain`` elsewhere; ``none`` shows
            nothing.
        max_steps: The most steps that the run may take, or whatever else is counted.
    """
    if display == "rich" or (display == "auto" and sys.stdout.isatty()):
        return _RichProgress(max_steps)
    return _NoProgress() if display == "none" else _PlainProgress(max_steps)


def step_line(row: Mapping[str, Any], max_steps: int) -> str:
    """The metrics of one step as a line; a metric that is missing is shown as ``-``."""
    cells = [f"{label} {_format(row.get(key), layout)}" for label, key, layout in _columns(row)]
    return f"step {row['step']:>3}/{max_steps}  {row['stage']:8}  {'  '.join(cells)}  {row['seconds']:.1f} s"


def sparkline(values: Sequence[float | None], width: int = _SPARKLINE_WIDTH) -> str:
    """Draw the course of some values as blocks, from the lowest to the highest of them.

    Args:
        values: In order; of more than `width`, neighbours are drawn as their mean. None leaves a gap.
        width: Most characters.
    """
    bins = min(len(values), width)
    cut = [values[place * len(values) // bins : (place + 1) * len(values) // bins] for place in range(bins)]
    known = [[value for value in part if value is not None] for part in cut]
    means = [sum(part) / len(part) if part else None for part in known]
    there = [mean for mean in means if mean is not None]
    low, height = min(there, default=0.0), max(there, default=0.0) - min(there, default=0.0)
    return "".join(" " if mean is None else _spark((mean - low) / height if height else 0.5) for mean in means)


class _NoProgress:
    def phase(self, text: str) -> None:
        pass

    def expect(self, max_steps: int) -> None:
        pass

    def step(self, row: Mapping[str, Any]) -> None:
        pass

    def count(self, done: int, text: str) -> None:
        pass

    def advance(self, done: int, text: str) -> None:
        pass

    def close(self) -> None:
        pass


class _PlainProgress:
    def __init__(self, max_steps: int) -> None:
        self._max_steps = max_steps

    def phase(self, text: str) -> None:
        sys.stdout.write(f"{visible(text)}\n")
        sys.stdout.flush()

    def expect(self, max_steps: int) -> None:
        self._max_steps = max_steps

    def step(self, row: Mapping[str, Any]) -> None:
        self.phase(step_line(row, self._max_steps))

    def count(self, done: int, text: str) -> None:
        self.phase(text)

    def advance(self, done: int, text: str) -> None:
        pass

    def close(self) -> None:
        pass


class _RichProgress:
    def __init__(self, max_steps: int) -> None:
        from rich import live, progress

        self._max_steps = max_steps
        self._rows: list[Mapping[str, Any]] = []
        columns = (
            progress.SpinnerColumn(),
            progress.TextColumn("{task.description}", markup=False),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TimeElapsedColumn(),
        )
        self._bar = progress.Progress(*columns)
        self._task = self._bar.add_task("starting", total=max_steps)
        self._live = live.Live(get_renderable=self._shown, refresh_per_second=4)
        self._live.start()

    def phase(self, text: str) -> None:
        # The bar names what runs; an indented line is only a detail of it.
        if not text.startswith(" "):
            self._bar.update(self._task, description=visible(text)[:_DESCRIPTION_WIDTH])
        self._print(text)

    def expect(self, max_steps: int) -> None:
        self._max_steps = max_steps
        self._bar.update(self._task, total=max_steps)

    def step(self, row: Mapping[str, Any]) -> None:
        self._rows.append(row)
        self._bar.update(self._task, description=visible(f"training, {row['stage']}"))
        self.count(row["step"], step_line(row, self._max_steps))

    def count(self, done: int, text: str) -> None:
        self._bar.update(self._task, completed=done)
        self._print(text)

    def advance(self, done: int, text: str) -> None:
        self._bar.update(self._task, completed=done, description=visible(text)[:_DESCRIPTION_WIDTH])

    def close(self) -> None:
        self._live.stop()

    def _print(self, text: str) -> None:
        self._live.console.print(visible(text), markup=False, highlight=False, soft_wrap=True)

    def _shown(self) -> Group:
        from rich.console import Group

        return Group(*([_table(self._rows)] if self._rows else []), self._bar)


def _table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """What the steps since the start of this process have done to each metric."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in ("metric", "first", "now"):
        table.add_column(heading, justify="left" if heading == "metric" else "right", no_wrap=True)
    table.add_column(f"steps {rows[0]['step']} to {rows[-1]['step']}", no_wrap=True)
    for label, key, layout in _columns(rows[-1]):
        values = [row.get(key) for row in rows]
        table.add_row(label, _format(values[0], layout), _format(values[-1], layout), sparkline(values))
    return table


def _columns(row: Mapping[str, Any]) -> tuple[tuple[str, str, str], ...]:
    return _SUPERVISED_COLUMNS if "trained_tokens" in row else _POLICY_COLUMNS


def _spark(height: float) -> str:
    return _SPARKS[round(height * (len(_SPARKS) - 1))]


def _format(value: float | None, layout: str) -> str:
    return "-" if value is None else layout.format(value)

"""A leaderboard as Markdown."""

from __future__ import annotations

import re
from collections.abc import Sequence

from search_agents.evaluation.report import table
from search_agents.leaderboard.sections import Section

__all__ = ["markdown"]


def markdown(sections: Sequence[Section]) -> str:
    """Write sections as a page; nothing that a name or a note holds is markup."""
    parts = []
    for section in sections:
        parts.append(f"{'#' * section.level} {_inert(section.heading)}")
        parts += (
            [f"- {_inert(note)}" for note in section.notes] if len(section.notes) > 1 else map(_inert, section.notes)
        )
        # Indented, so that a command can be copied as it is.
        parts += [f"    {command}" for command in section.commands]
        if section.header:
            parts.append(table(section.header, [[_inert(cell.text) for cell in row] for row in section.rows]))
    return "\n\n".join(parts) + "\n"


def _inert(text: str) -> str:
    # An underscore within a word is no markup, and names are full of them; the bar is for the table to escape.
    return re.sub(r"[\\`*\[\]<>#!&]|(?<!\w)_|_(?!\w)", lambda found: f"\\{found[0]}", " ".join(text.split()))

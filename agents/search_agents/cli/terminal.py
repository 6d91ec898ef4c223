"""Writing to the terminal, at once, so that a pipe sees it too."""

from __future__ import annotations

import sys

from search_env.render import visible

__all__ = ["write"]


def write(text: str = "") -> None:
    """Write one line (or block) to stdout; whatever is in it, it commands no terminal."""
    sys.stdout.write(f"{visible(text)}\n")
    sys.stdout.flush()

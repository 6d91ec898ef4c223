"""Writing to the terminal, at once, so that a pipe sees it too."""

from __future__ import annotations

import sys

__all__ = ["write"]


def write(text: str = "") -> None:
    """Write one line (or block) to stdout.

    Text of a model, a document or the user must have passed through `search_env.render.visible`.
    """
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()

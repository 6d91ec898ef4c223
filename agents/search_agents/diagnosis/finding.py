"""What a check has found."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

__all__ = ["Finding", "Verdict"]


class Verdict(StrEnum):
    """How a finding is to be read."""

    OK = "ok"
    NOTE = "note"
    """Worth knowing, nothing to mend: what is not installed need not be."""
    PROBLEM = "problem"
    """To be mended, or something that is installed does not work."""


class Finding(NamedTuple):
    """One line of a diagnosis."""

    check: str
    """What was looked at."""
    verdict: Verdict
    """How it is."""
    text: str
    """What was found."""
    remedy: str = ""
    """What to type; empty where there is nothing to do."""

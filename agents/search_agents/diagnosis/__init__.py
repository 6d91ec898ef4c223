"""What is wrong with an installation, and what to type about it.

Every check is a function that yields findings, and one that breaks is a finding itself: of
all programs this one must run where nothing else does. Torch is imported in a process of
its own, so that a build which crashes is told like anything else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from search_agents.diagnosis.finding import Finding, Verdict
from search_agents.diagnosis.installation import extras, packages
from search_agents.diagnosis.machine import disk, threads
from search_agents.diagnosis.services import retriever
from search_agents.diagnosis.torch_build import check_torch
from search_env.retrieval import RetrieverSpec

__all__ = ["Finding", "Verdict", "diagnose"]

Check = Callable[[], Iterable[Finding]]


def diagnose(*, out: Path = Path("outputs"), searching: RetrieverSpec | None = None) -> Iterator[Finding]:
    """Look at the installation and the machine, the quick checks first.

    Args:
        out: Folder of the outputs, where room is needed.
        searching: A retriever to ask; None asks none.

    Yields:
        What each check has found, as soon as it is known.
    """
    from search_env.retrieval.bm25 import cache_folder

    checks: dict[str, Check] = {
        "packages": packages,
        "extras": extras,
        "disk": lambda: (*disk("outputs", out), *disk("cache", cache_folder())),
        "threads": threads,
        "torch": check_torch,
    }
    if searching is not None:
        checks["retriever"] = partial(retriever, searching)
    for name, check in checks.items():
        yield from _guarded(name, check)


def _guarded(name: str, check: Check) -> Iterator[Finding]:
    try:
        yield from check()
    except Exception as error:  # What broke it is what the user wants to know.
        yield Finding(name, Verdict.PROBLEM, f"the check broke: {type(error).__name__}: {error}", "python -m pip check")

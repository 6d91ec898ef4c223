"""Room on the disks, and cores for the threads."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from search_agents.diagnosis.finding import Finding, Verdict

__all__ = ["cores", "disk", "threads"]

_GIB = 2**30
_LEAST_ROOM = 2 * _GIB  # a checkpoint of a small model with its optimizer
_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_SLOW = "two processes of two threads each on two cores were 13 to 95 times slower than of one"


def disk(what: str, folder: Path) -> Iterator[Finding]:
    """Whether a folder can be written to, or made, and has room.

    Args:
        what: Its name in the finding: ``outputs`` or ``cache``.
        folder: The folder; it need not exist.
    """
    elsewhere = {
        "outputs": "search-env doctor --out FOLDER (and give the verbs --out)",
        "cache": "export SEARCH_ENV_CACHE=FOLDER",
    }[what]
    place = folder.expanduser().absolute()
    there = next(path for path in (place, *place.parents) if path.exists())
    if not there.is_dir():
        yield Finding(what, Verdict.PROBLEM, f"{there} is a file, not a folder", elsewhere)
        return
    if not os.access(there, os.W_OK | os.X_OK):
        yield Finding(what, Verdict.PROBLEM, f"{there} cannot be written to", elsewhere)
        return
    free = shutil.disk_usage(there).free
    told = f"{free / _GIB:,.1f} GiB free for {folder}"
    if free < _LEAST_ROOM:
        text = f"{told}; less than {_LEAST_ROOM // _GIB} GiB, so a run may end with a full disk"
        yield Finding(what, Verdict.PROBLEM, text, f"make room, or {elsewhere}")
    else:
        yield Finding(what, Verdict.OK, told)


def cores(quota: Path = _QUOTA) -> int:
    """The cores that this process may use: those it is bound to, or less where a container has a quota (cgroup v2)."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        limit, period = quota.read_text().split()
        return bound if limit == "max" else min(bound, max(1, math.ceil(int(limit) / int(period))))
    except (OSError, ValueError):
        return bound


def threads(environment: Mapping[str, str] = os.environ) -> Iterator[Finding]:
    """Whether processes will fight for the cores.

    Args:
        environment: Where OMP_NUM_THREADS is read from.
    """
    have, given = cores(), environment.get("OMP_NUM_THREADS")
    told = f"{have} cores, OMP_NUM_THREADS {given or 'not set'}"
    if given is not None and not (given.isdecimal() and int(given)):
        yield Finding("threads", Verdict.PROBLEM, f"{told}: not a number of threads", "export OMP_NUM_THREADS=1")
    elif given is not None and int(given) > have:
        text = f"{told}: more threads than cores wait for each other ({_SLOW})"
        yield Finding("threads", Verdict.PROBLEM, text, f"export OMP_NUM_THREADS={have}")
    elif given is None and have > 1:
        text = f"{told}: every process takes all cores, which is right for one process only ({_SLOW})"
        yield Finding("threads", Verdict.NOTE, text, "export OMP_NUM_THREADS=1 where several run at once")
    else:
        at_once = have // int(given or 1)
        yield Finding("threads", Verdict.OK, f"{told}: room for {at_once} process{'es' if at_once > 1 else ''} at once")
    if (load := os.getloadavg()[0]) > have:
        text = f"{load:.1f} threads want the {have} cores now, so times measured here mean little"
        yield Finding("load", Verdict.NOTE, text, "top")

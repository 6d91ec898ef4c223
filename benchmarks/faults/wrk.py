"""``search-env serve`` under wrk, from light load to more than it can hold, and back.

wrk is a load generator in C: it opens many connections and costs the machine little, so
that what it measures is the server. Each connection asks again as soon as it is answered,
or refused.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.faults.serving import Phase, under_load
from search_env.errors import MissingDependencyError

__all__ = ["PHASES", "installed", "wrk"]

_SCRIPT = Path(__file__).with_suffix(".lua")
_BODIES = 200
_PATIENCE_S = 30


PHASES = (
    Phase("light", 2, 8),
    Phase("saturation", 32, 64),
    Phase("overload", 256, 64),
    Phase("light again", 2, 8),
)
"""At overload 16,384 queries are asked at once, and the server lets 4,096 wait."""


def installed() -> bool:
    """Whether wrk is on this machine."""
    return shutil.which("wrk") is not None


def wrk(folder: Path, *, seconds: int = 10, phases: Sequence[Phase] = PHASES) -> dict[str, Any]:
    """Put every load on the server, one after the other.

    Args:
        folder: Where the corpus and the requests are written.
        seconds: How long each load lasts.
        phases: The loads.

    Returns:
        The version of wrk, a row for each phase, and the server's resident memory before and after.

    Raises:
        MissingDependencyError: If there is no wrk.
        AssertionError: If the server crashed, or does not answer when a load is gone.
    """
    if not installed():
        raise MissingDependencyError("wrk is not installed. Install it (Debian: apt-get install wrk) or leave it out.")

    def put(address: str, phase: Phase, questions: Sequence[str]) -> dict[str, Any]:
        bodies = _write_bodies(folder / f"{phase.batch}.jsonl", questions, phase.batch)
        return _figures(phase, _drive(f"{address}/v1/search", bodies, phase, seconds))

    return {"tool": _version(), **under_load(folder, phases, put)}


def _write_bodies(file: Path, questions: Sequence[str], batch: int) -> Path:
    """Requests, one a line; no two queries of one are equal."""
    with file.open("w", encoding="utf-8") as stream:
        for number in range(_BODIES):
            places = range(number * batch, (number + 1) * batch)
            asked = [f"{questions[place % len(questions)]} {place // len(questions)}" for place in places]
            stream.write(json.dumps({"queries": asked}) + "\n")
    return file


def _drive(url: str, bodies: Path, phase: Phase, seconds: int) -> dict[str, Any]:
    threads = min(2, phase.connections)
    settings = [f"-t{threads}", f"-c{phase.connections}", f"-d{seconds}s", f"--timeout={_PATIENCE_S}s"]
    command = ["wrk", *settings, "-s", str(_SCRIPT), url, "--", str(bodies)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + 2 * _PATIENCE_S)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _figures(phase: Phase, found: dict[str, Any]) -> dict[str, Any]:
    wrong = {name: found[name] for name in ("other_status", "timeouts", "broken") if found[name]}
    return {
        "answered": found["answered"],
        "refused_503": found["refused_503"],
        "other_failures": sum(wrong.values()),
        "errors": wrong,
        "queries_per_second": round(found["answered"] * phase.batch / found["seconds"], 1),
        **{name: round(found[name], 1) for name in ("p50_ms", "p90_ms", "p99_ms", "most_ms")},
    }


def _version() -> str:
    told = subprocess.run(["wrk", "--version"], capture_output=True, text=True, check=False)  # exits with 1
    return (told.stdout + told.stderr).split(" Copyright")[0].strip()

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
from typing import Any, NamedTuple

import httpx

from benchmarks.faults.overload import resident_mib, served_apart
from search_env.datasets import load
from search_env.datasets.jsonl import write_corpus
from search_env.errors import MissingDependencyError

__all__ = ["PHASES", "Phase", "installed", "wrk"]

_SCRIPT = Path(__file__).with_suffix(".lua")
_BODIES = 200
_PATIENCE_S = 30


class Phase(NamedTuple):
    """Some seconds of one load."""

    name: str
    connections: int
    batch: int
    """Queries of a request."""


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
    dataset = load("fictional-wiki", split="test")
    corpus = folder / "corpus.jsonl"
    write_corpus(corpus, dataset.documents)
    questions = [question.text for question in dataset.questions]
    rows = []
    with served_apart(corpus) as (address, process):
        before = resident_mib(process)
        for phase in phases:
            bodies = _write_bodies(folder / f"{phase.batch}.jsonl", questions, phase.batch)
            rows.append(_row(phase, _drive(f"{address}/v1/search", bodies, phase, seconds)))
            assert httpx.get(f"{address}/healthz", timeout=30).json() == {"status": "ok"}
        after = resident_mib(process)
    return {"tool": _version(), "phases": rows, "memory_mib": {"before": before, "after": after}}


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


def _row(phase: Phase, found: dict[str, Any]) -> dict[str, Any]:
    wrong = {name: found[name] for name in ("other_status", "timeouts", "broken") if found[name]}
    return {
        **phase._asdict(),
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

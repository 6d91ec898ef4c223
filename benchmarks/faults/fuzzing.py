"""Runs the fuzzer of tests/fuzz on every target, and reads what it says."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

__all__ = ["fuzz", "read_log", "targets"]

_ROOT = Path(__file__).parents[2]
_FUZZ = _ROOT / "tests" / "fuzz"
_MAX_BYTES = 2048


def targets() -> list[str]:
    """Every target, by the folders of its inputs."""
    return sorted(path.name for path in (_FUZZ / "corpus").iterdir())


def fuzz(python: str, out: Path, names: Sequence[str], *, seconds: int) -> list[dict[str, Any]]:
    """Fuzz targets, each for a while.

    Args:
        python: An interpreter that has atheris and this package.
        out: Where new inputs go, and what broke a target.
        names: The targets.
        seconds: How long each is fuzzed.

    Returns:
        Inputs tried, branches reached and breaks, of each target.

    Raises:
        FileNotFoundError: If there is no such interpreter.
    """
    rows = []
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (_ROOT, _ROOT / "agents")))}
    for target in names:
        new = out / target
        command = [python, str(_FUZZ / "fuzz.py"), target, str(new), str(_FUZZ / "corpus" / target)]
        command += [f"-max_total_time={seconds}", f"-max_len={_MAX_BYTES}", "-timeout=20", "-print_final_stats=1"]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", env=environment, check=False)
        ended = {"seconds": seconds, "date": f"{datetime.now(UTC):%Y-%m-%d}", "exit": done.returncode}
        rows.append({"target": target, **read_log(done.stderr), **ended})
    return rows


def read_log(log: str) -> dict[str, Any]:
    """Inputs tried, branches reached and what broke, from libFuzzer's log."""
    tried = [int(number) for number in re.findall(r"^#(\d+)\s", log, re.MULTILINE)]
    tried += [int(number) for number in re.findall(r"^Done (\d+) runs", log, re.MULTILINE)]
    covered = re.findall(r"\bcov: (\d+)", log)
    broke = re.findall(r"^ *=== Uncaught Python exception: ===\n(.*)$", log, re.MULTILINE)
    broke += re.findall(r"ERROR: libFuzzer: (timeout|out-of-memory)", log)
    return {"inputs": max(tried, default=0), "coverage": int(covered[-1]) if covered else 0, "broke": broke}

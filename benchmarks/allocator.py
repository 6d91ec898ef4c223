"""What a learner's step on a CPU costs by what becomes of the memory that it frees.

* ``given back``: glibc as it comes, which returns every large tensor to the system,
* ``kept``: glibc as the learner sets it, see `search_agents.learning.torch_settings.keep_memory`,
* ``preloaded``: the allocator of ``--preload``, for instance tcmalloc (Debian: libtcmalloc-minimal4).

Each runs in processes of its own, in turn: the same steps over the same ragged rows in bfloat16. The first step is the
first to touch its memory, whoever allocates; the ratio is of the last step's processor time.

    python benchmarks/allocator.py --model FOLDER --preload libtcmalloc_minimal.so.4 --write
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from benchmarks.environment import about
from benchmarks.learner import our_learner, ragged_rows

RESULT = Path(__file__).parent / "results" / "allocator.json"
GIVEN_BACK, KEPT, PRELOADED = "given back", "kept", "preloaded"
Step = dict[str, float]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the page, and keep it if asked."""
    arguments = _arguments(argv)
    if arguments.contender:
        print(json.dumps(_steps(arguments)))
        return
    names = [GIVEN_BACK, KEPT, *([PRELOADED] if arguments.preload else [])]
    rounds = [{name: _in_own_process(name, arguments) for name in names} for _ in range(arguments.rounds)]
    told = ["allocator.py", "--model", Path(arguments.model).name, "--steps", str(arguments.steps)]
    told += ["--preload", Path(arguments.preload).name] if arguments.preload else []
    report = {**about(told), "tokens": sum(_lengths(arguments.rows)), "rounds": rounds}
    print(markdown(report))
    if arguments.write:
        RESULT.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        RESULT.with_suffix(".md").write_text(markdown(report), encoding="utf-8")


def _in_own_process(name: str, arguments: argparse.Namespace) -> list[Step]:
    settings = ["--model", arguments.model, "--rows", arguments.rows, "--steps", arguments.steps]
    command = [sys.executable, "-m", "benchmarks.allocator", "--contender", name, *map(str, settings)]
    environment = os.environ | ({"LD_PRELOAD": arguments.preload} if name == PRELOADED else {})
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=environment, cwd=Path(__file__).parents[1]
    )
    if done.returncode or "cannot be preloaded" in done.stderr:
        raise SystemExit(f"{name!r} failed:\n{done.stderr[-3000:]}")
    found: list[Step] = json.loads(done.stdout.splitlines()[-1])
    return found


def _steps(arguments: argparse.Namespace) -> list[Step]:
    torch.set_num_threads(1)
    as_it_comes = patch("search_agents.learning.learner.keep_memory")
    with nullcontext() if arguments.contender == KEPT else as_it_comes:
        prepare = our_learner(arguments.model, True, False)
    work = prepare(ragged_rows(_lengths(arguments.rows)))
    found = []
    for _ in range(arguments.steps):
        before = resource.getrusage(resource.RUSAGE_SELF)
        work()
        after = resource.getrusage(resource.RUSAGE_SELF)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        found.append({"cpu_seconds": cpu, "faults": after.ru_minflt - before.ru_minflt, "peak_kib": after.ru_maxrss})
    return found


def _lengths(rows: int) -> list[int]:
    return np.linspace(500, 1300, rows).astype(int).tolist()  # type: ignore[no-any-return]


def markdown(report: Mapping[str, Any]) -> str:
    """The page: processor time, page faults and memory of the last step, and how it was made."""
    last = {name: [found[name][-1] for found in report["rounds"]] for name in report["rounds"][0]}
    seconds = {name: statistics.median(step["cpu_seconds"] for step in steps) for name, steps in last.items()}
    lines = [
        "# A learner's step by what becomes of freed memory",
        "",
        "| memory | processor seconds | lowest to highest | speed | page faults | peak (MiB) |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, steps in last.items():
        spread = [step["cpu_seconds"] for step in steps]
        lines.append(
            f"| {name} | {seconds[name]:.1f} | {min(spread):.1f} to {max(spread):.1f} "
            f"| {seconds[GIVEN_BACK] / seconds[name]:.2f} | {statistics.median(step['faults'] for step in steps):,.0f} "
            f"| {statistics.median(step['peak_kib'] for step in steps) / 1024:,.0f} |"
        )
    told = [f"* {key}: {report[key]}" for key in ("command", "date", "machine")]
    about_steps = (
        f"The last of {len(next(iter(report['rounds'][0].values())))} steps over {report['tokens']:,} tokens in "
        f"bfloat16, one thread; medians of {len(report['rounds'])} processes each, in turn."
    )
    return "\n".join([*lines, "", about_steps, "", *told]) + "\n"


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of the model")
    parser.add_argument("--preload", help="shared library of another allocator")
    parser.add_argument("--rows", type=int, default=4, help="of a step, 500 to 1300 tokens each")
    parser.add_argument("--steps", type=int, default=4, help="that a process takes")
    parser.add_argument("--rounds", type=int, default=3, help="processes of each kind")
    parser.add_argument("--contender", choices=[GIVEN_BACK, KEPT, PRELOADED], help=argparse.SUPPRESS)
    parser.add_argument("--write", action="store_true", help=f"keep the figures in {RESULT.parent.name}/")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()

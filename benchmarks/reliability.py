"""What was done to break it, and what came of that: faults, load and fuzzed inputs.

    python benchmarks/reliability.py                                 soak and overload (and wrk if it is installed)
    python benchmarks/reliability.py --only runners --write          the soak over env runners that are killed
    python benchmarks/reliability.py --only wrk --seconds 15 --write
    python benchmarks/reliability.py --only soak --episodes 100000 --seed 1
    python benchmarks/reliability.py --only fuzz --fuzz-python .venv-fuzz/bin/python --seconds 600 --targets questions
    python benchmarks/reliability.py --only tests --write            tests/reliability and tests/security

Each part that is run replaces its figures in benchmarks/results/reliability.json (--write), with its own command and
date; the others keep theirs, and so do targets that were not fuzzed. It exits with 1 if an episode was lost or counted
twice, memory grew, the server crashed or did not recover, an input broke a target, or a test failed.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.environment import about
from benchmarks.faults.fuzzing import fuzz, targets
from benchmarks.faults.overload import overload
from benchmarks.faults.soak import soak
from benchmarks.faults.wrk import installed, wrk

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
PARTS = ("soak", "runners", "overload", "wrk", "fuzz", "tests")
MEMORY_MIB = 16.0
"""By so much the resident memory may differ after the first tenth of a soak: the allocator keeps what it was given."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run parts, print the page, and keep it if asked."""
    arguments = _parser().parse_args(argv)
    kept = RESULTS / "reliability.json"
    figures = json.loads(kept.read_text()) if kept.exists() else {}
    command = about(["reliability.py", *(sys.argv[1:] if argv is None else argv)])
    failures = []
    for part in arguments.only:
        with _without_warnings():
            found = {**command, **_RUN[part](arguments)}
        failures += [f"{part}: {problem}" for problem in problems(part, found)]
        figures[part] = _beside_other_targets(figures, found) if part == "fuzz" else found
    print(markdown(figures))
    if arguments.write:
        kept.write_text(json.dumps(figures, indent=1) + "\n")
        kept.with_suffix(".md").write_text(markdown(figures))
    for failure in failures:
        print(failure, file=sys.stderr)
    return 1 if failures else 0


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Leave out that search_env warns of each episode that an outage ends."""
    logger = logging.getLogger("search_env")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def problems(part: str, found: Mapping[str, Any]) -> list[str]:
    """What must not be in the figures of a part."""
    if part == "soak":
        first, *_, last = found["memory_mib"].values()
        grown = [f"memory grew from {first} to {last} MiB"] if last - first > MEMORY_MIB else []
        return grown + ([f"{found['lost']} episodes were lost"] if found["lost"] else [])
    if part == "runners":
        lost = [f"{found['lost']} episodes were lost"] if found["lost"] else []
        return lost + ([] if found["replaced"] else ["no runner was killed: more episodes are needed"])
    if part in ("overload", "wrk"):
        rows = {row["name"]: row for row in found["phases"]}
        missing = [] if rows["overload"]["refused_503"] else ["nothing was refused: the load was too small"]
        failed = [f"{name}: {row['errors']}" for name, row in rows.items() if row["other_failures"]]
        unanswered = [f"{name}: nothing was answered" for name, row in rows.items() if not row["answered"]]
        refused = ["it still refuses"] if rows["light again"]["refused_503"] else []
        return missing + failed + unanswered + refused
    if part == "fuzz":
        return [
            f"{row['target']}: {row['broke'] or row['exit']}" for row in found["rows"] if row["broke"] or row["exit"]
        ]
    return [f"{row['folder']}: {row['failed']} failed" for row in found["rows"] if row["failed"] or not row["passed"]]


def markdown(figures: Mapping[str, Any]) -> str:
    """The page."""
    parts = [f"{_PAGE[part](figures[part])}\n\n{_how(figures[part])}" for part in PARTS if part in figures]
    return "\n\n".join(["# Reliability: what was done to break it", *parts]) + "\n"


def _soak(arguments: argparse.Namespace) -> dict[str, Any]:
    return soak(arguments.episodes, seconds=arguments.minutes * 60, seed=arguments.seed).figures()


def _runners(arguments: argparse.Namespace) -> dict[str, Any]:
    from benchmarks.faults.dying import soak_runners  # which needs Ray

    return soak_runners(arguments.episodes, seconds=arguments.minutes * 60, seed=arguments.seed)


def _overload(arguments: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return overload(Path(folder), seconds=arguments.seconds)


def _wrk(arguments: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        return wrk(Path(folder), seconds=arguments.seconds)


def _fuzz(arguments: argparse.Namespace) -> dict[str, Any]:
    names = arguments.targets
    return {"rows": fuzz(arguments.fuzz_python, ROOT / "outputs" / "fuzz", names, seconds=arguments.seconds)}


def _beside_other_targets(figures: Mapping[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """What was fuzzed now, in the place of what was fuzzed before of the same targets."""
    rows = {row["target"]: row for row in (*figures.get("fuzz", {"rows": []})["rows"], *found["rows"])}
    return {**found, "rows": [rows[target] for target in sorted(rows)]}


def _tests(arguments: argparse.Namespace) -> dict[str, Any]:
    """Every fault that a test injects, by folder."""
    rows = []
    for folder in arguments.tests:
        with tempfile.TemporaryDirectory() as reports:
            report = Path(reports, "report.xml")
            command = [sys.executable, "-m", "pytest", "-q", folder, f"--junitxml={report}", *arguments.pytest]
            subprocess.run(command, cwd=ROOT, check=False)
            (suite,) = ElementTree.parse(report).getroot().iter("testsuite")
        tried, failed = int(suite.attrib["tests"]), int(suite.attrib["failures"]) + int(suite.attrib["errors"])
        skipped = int(suite.attrib["skipped"])
        row = {"folder": folder, "tried": tried - skipped, "passed": tried - skipped - failed, "failed": failed}
        rows.append({**row, "not_run_here": skipped})
    return {"rows": rows}


_RUN = {"soak": _soak, "runners": _runners, "overload": _overload, "wrk": _wrk, "fuzz": _fuzz, "tests": _tests}


_SOAK_NOTE = """
A hiccup is tried again and costs no episode. An outage, or silence until the deadline, makes the episodes that searched
invalid: such an episode is played again. The model wrote malformed, endless and forged segments as well. In every
episode the mask held the sampled tokens alone, no answer came from a document, and no text of a failure was read by
the model.
"""
_OVERLOAD_NOTE = """
`search-env serve` over FictionalWiki in a process of its own, on the machine that asks. What it has no room for is
refused at once with 503 and `Retry-After`; nothing is answered in part, and the load gone, it answers as before.
"""
_WRK_NOTE = """
refusals too. Other failures are any other status, broken connections, and answers later than 30 s. Who is refused asks
again at once, without the pause of `Retry-After`: the worst a client can do.
"""
_TESTS_NOTE = "[tests/security/README.md](../../tests/security/README.md) says which risk each of them is about."


def _soak_page(found: Mapping[str, Any]) -> str:
    calls = found["faults_of_the_service"]
    faults = {fault: count for fault, count in calls.items() if fault != "none"}
    ended = f" of {found['asked_for']:,} asked for, as the time was over," if found["not_begun"] else ""
    memory = ", ".join(f"{value} MiB {when} episodes" for when, value in found["memory_mib"].items())
    return "\n".join(
        [
            "## Soak: episodes among random faults\n",
            f"{found['episodes']:,} episodes{ended} in {found['seconds']:.0f} s, {found['lost']} lost, each accounted",
            f"for exactly once; {found['invalid_and_played_again']:,} attempts were invalid and played again.",
            f"Resident memory: {memory}. {sum(faults.values()):,} of {sum(calls.values()):,} calls of the service met",
            "a fault:\n",
            *_table(["fault of the service", "times"], [[fault, f"{count:,}"] for fault, count in faults.items()]),
            _SOAK_NOTE.rstrip(),
        ]
    )


def _runners_page(found: Mapping[str, Any]) -> str:
    faults = {fault: count for fault, count in found["faults_of_the_service"].items() if fault != "none"}
    rows = [[fault, f"{count:,}"] for fault, count in faults.items()]
    return "\n".join(
        [
            "## Soak over env runners: the same, and processes that are killed\n",
            f"{found['episodes']:,} episodes on {found['runners']} env runners of Ray in {found['seconds']:.0f} s, "
            f"{found['lost']} lost,",
            f"each accounted for exactly once; {found['invalid_and_played_again']:,} attempts were invalid and played",
            f"again. {found['killed']} times a search killed its runner, in the middle of up to 64 episodes; each was",
            "replaced, and the new one played them again.\n",
            *_table(["fault of the service", "times"], [*rows, ["the runner is killed", f"{found['killed']:,}"]]),
        ]
    )


def _overload_page(found: Mapping[str, Any]) -> str:
    return "\n".join(
        [
            "## Load: the server to saturation, overload, and back\n",
            *_loads(found, {"p50_ms": "p50", "p95_ms": "p95"}),
            _OVERLOAD_NOTE.rstrip(),
            _memory_told(found),
        ]
    )


def _wrk_page(found: Mapping[str, Any]) -> str:
    latencies = {"p50_ms": "p50", "p90_ms": "p90", "p99_ms": "p99", "most_ms": "most"}
    return "\n".join(
        [
            "## Load by wrk: the same from many connections\n",
            *_loads(found, latencies),
            f"\nMeasured by `{found['tool']}`, which posts to `/v1/search`; its latencies are those of all responses,",
            _WRK_NOTE.strip(),
            _memory_told(found),
        ]
    )


def _loads(found: Mapping[str, Any], latencies: Mapping[str, str]) -> list[str]:
    """A row for each load; latencies are keys of the figures and what heads their columns."""
    counts = {"answered": "answered (200)", "refused_503": "refused (503)", "other_failures": "other failures"}
    rows = [
        [
            row["name"],
            f"{row['connections']} × {row['batch']}",
            *(f"{row[key]:,.0f}" for key in ("queries_per_second", *latencies)),
            *(f"{row[key]:,}" for key in counts),
        ]
        for row in found["phases"]
    ]
    times = (f"{name} (ms)" for name in latencies.values())
    return _table(["load", "connections × queries", "queries/s", *times, *counts.values()], rows)


def _memory_told(found: Mapping[str, Any]) -> str:
    memory = found["memory_mib"]
    return f"The server's resident memory was {memory['before']} MiB before and {memory['after']} MiB after."


def _fuzz_page(found: Mapping[str, Any]) -> str:
    counts = ("seconds", "inputs", "coverage")
    rows = [
        [row["target"], *(f"{row[key]:,}" for key in counts), ", ".join(row["broke"]) or "0", row["date"]]
        for row in found["rows"]
    ]
    total = sum(row["inputs"] for row in found["rows"])
    return "\n".join(
        [
            "## Fuzzing: any bytes, and no exception but ours\n",
            *_table(["target", "seconds", "inputs", "branches reached", "broke", "date"], rows),
            f"\n{total:,} inputs, guided by coverage (atheris). What broke a target before it was mended is kept in",
            "`tests/fuzz/corpus`, whose inputs `make test` tries again. The newest run, of the targets that it names:",
        ]
    )


def _tests_page(found: Mapping[str, Any]) -> str:
    keys = ("tried", "passed", "failed", "not_run_here")
    rows = [[f"`{row['folder']}`", *(str(row[key]) for key in keys)] for row in found["rows"]]
    head = ["tests", "tried", "survived", "lost", "not run here"]
    return "\n".join(["## Faults injected by tests\n", *_table(head, rows), f"\n{_TESTS_NOTE}"])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rule = ["---", *["---:"] * (len(head) - 1)]
    return [f"| {' | '.join(row)} |" for row in (head, rule, *rows)]


_PAGE = {
    "soak": _soak_page,
    "runners": _runners_page,
    "overload": _overload_page,
    "wrk": _wrk_page,
    "fuzz": _fuzz_page,
    "tests": _tests_page,
}


def _how(found: Mapping[str, Any]) -> str:
    return "\n".join(f"* {key}: {found[key]}" for key in ("command", "date", "machine"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    usual = ["soak", "overload", *(["wrk"] if installed() else [])]
    parser.add_argument("--only", nargs="+", choices=PARTS, default=usual, help="parts to run [%(default)s]")
    parser.add_argument("--episodes", type=int, default=10_000, help="of the soak [%(default)s]")
    parser.add_argument("--minutes", type=float, default=60.0, help="the most of the soak [%(default)s]")
    parser.add_argument("--seed", type=int, default=0, help="of the soak's faults [%(default)s]")
    parser.add_argument("--seconds", type=int, default=10, help="of each load and each fuzzed target [%(default)s]")
    parser.add_argument(
        "--fuzz-python", default=".venv-fuzz/bin/python", help="an interpreter with atheris [%(default)s]"
    )
    parser.add_argument("--targets", nargs="+", choices=targets(), default=targets(), help="of the fuzzer [all]")
    parser.add_argument("--tests", nargs="+", default=["tests/reliability", "tests/security"], help="[%(default)s]")
    parser.add_argument("--pytest", nargs="*", default=[], help="more arguments for pytest")
    parser.add_argument("--write", action="store_true", help=f"keep the page in {RESULTS.name}/")
    return parser


if __name__ == "__main__":
    sys.exit(main())

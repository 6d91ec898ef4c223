"""What a step of the environment costs beside other packages' environments: the same episodes, the same documents.

    python benchmarks/environment.py
    python benchmarks/environment.py --peer gem=GEM_VENV/bin/python --peer skyrl_gym=SKYRL_VENV/bin/python --write

Each slot searches twice in a stub that finds five documents of 80 words, then gives the right answer. Every environment
gets the same texts, and every step of every slot is checked: a search must show all of its documents, the answer must
end the episode with a reward of 1. Each peer is played by a module of benchmarks/peers in a Python of its own, where
its package is installed; the measurements are taken in turn.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Self

from benchmarks.peers.work import Work

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
OURS = "search_env_vector"
PEERS = sorted({path.stem for path in (Path(__file__).parent / "peers").glob("*.py")} - {"__init__", "work", OURS})
SLOTS, SEARCHES, DOCUMENTS, WORDS = 64, 2, 5, 80
AIM_US = 3.0
ABSENT = {
    "verifiers": "0.4.0 installs, but has no step that takes an action: its harness drives the model, over HTTP and "
    "with tools in servers of their own",
}
_NOTES = f"""
{SLOTS} slots; an episode is {SEARCHES} searches, each of {DOCUMENTS} documents of {WORDS} words, and an answer, all in
the tags of Search-R1. "step" is microseconds of processor time for one step of one slot: the time of a step of all
slots by their number, the median of the measurements with the lowest and the highest. Processor time does not count
what other jobs take, wall time does. "reset" is the processor time to begin an episode. Steps per second follow from
the median of the processor time: of one core.

Retrieval costs nothing here, so that the environment's own share is seen; behind a real search engine it is small.
What the environments do for a step differs: ours alone judges the format, tells metrics and makes documents inert (a
line once, when it is first shown; that is before the measurements). It keeps the transcript and the budgets as well.
"""


class Player:
    """One environment in a process of its own."""

    def __init__(self, name: str, python: str, work: Path) -> None:
        command = [python, "-m", f"benchmarks.peers.{name}", str(work)]
        self.name = name
        self.measured: list[dict[str, float]] = []
        self._process = subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
        )
        self.about: dict[str, str] = self._answer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def measure(self) -> None:
        """Let it play once more."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self.measured.append(self._answer())

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):  # Some packages greet.
                return json.loads(line)
        raise SystemExit(f"{self.name} failed, see above")


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the page, and keep it if asked."""
    arguments = _parser().parse_args(argv)
    pythons = {OURS: sys.executable} | dict(arguments.peer)
    rows = measure_in_turn(pythons, make_work(arguments.episodes), arguments.repeats)
    figures = {**about(["environment.py", *(sys.argv[1:] if argv is None else argv)]), **summary(rows)}
    print(markdown(figures))
    if arguments.write:
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / "environment.json").write_text(json.dumps(figures, indent=1) + "\n")
        (RESULTS / "environment.md").write_text(markdown(figures))


def make_work(episodes: int, slots: int = SLOTS) -> Work:
    """The episodes: queries and documents of their own in every slot and step."""
    rng = random.Random(0)
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(5000)]
    queries = [[f"{rng.choice(words)} {rng.choice(words)} {step} {slot}" for slot in range(slots)] for step in (1, 2)]
    answers = [f"{rng.choice(words)} {slot}" for slot in range(slots)]
    searches = [
        [f"<think> I look that up. </think> <search> {query} </search>" for query in one_each] for one_each in queries
    ]
    found = {
        query: [(" ".join(rng.choices(words, k=2)), " ".join(rng.choices(words, k=WORDS))) for _ in range(DOCUMENTS)]
        for one_each in queries
        for query in one_each
    }
    return Work(
        questions=[f"What is {' '.join(rng.choices(words, k=9))}?" for _ in range(slots)],
        answers=answers,
        actions=[*searches, [f"<think> Now I know. </think> <answer> {answer} </answer>" for answer in answers]],
        found=found,
        episodes=episodes,
    )


def measure_in_turn(pythons: Mapping[str, str], work: Work, repeats: int) -> list[dict[str, Any]]:
    """Name, version, settings and measurements of each environment.

    Args:
        pythons: Which Python plays it, by the module's name.
        work: What is played.
        repeats: Measurements of each; one more goes before them and does not count.

    Raises:
        AssertionError: If the environments did not take the same number of steps.
        SystemExit: If one failed or did not do the work.
    """
    with tempfile.TemporaryDirectory() as folder, ExitStack() as running:
        file = Path(folder) / "work.json"
        file.write_text(json.dumps(dataclasses.asdict(work)))
        players = [running.enter_context(Player(name, python, file)) for name, python in pythons.items()]
        for _ in range(repeats + 1):
            for player in players:
                player.measure()
    steps = {one["steps"] for player in players for one in player.measured}
    assert steps == {work.episodes * len(work.questions) * len(work.actions)}, f"unequal work: {steps} steps"
    return [{"name": player.name, **player.about, "measured": player.measured[1:]} for player in players]


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """``vector_step_us`` of ours, and a row for each environment."""
    found = [
        {
            **{key: row[key] for key in ("name", "version", "settings")},
            **{key: _spread(row["measured"], key) for key in ("step_us", "step_wall_us", "reset_us")},
            "steps_per_second": round(1e6 / median(one["step_us"] for one in row["measured"])),
        }
        for row in rows
    ]
    ours = next(row for row in found if row["name"] == OURS)
    return {"vector_step_us": ours["step_us"], "aim_us": AIM_US, "rows": found}


def about(command: Sequence[str]) -> dict[str, str]:
    """Command, date and machine, without the folders of the machine."""
    told = " ".join(word.split("=")[0] + "=PYTHON" if "=" in word else word for word in command)
    return {
        "command": f"python benchmarks/{told}",
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{os.cpu_count()} cores of {_processor()}, {platform.system()}, load {os.getloadavg()[0]:.1f}, "
        f"OMP_NUM_THREADS {os.environ.get('OMP_NUM_THREADS', 'not set')}, Python {platform.python_version()}",
    }


def markdown(figures: Mapping[str, Any]) -> str:
    """The page."""
    ours = figures["vector_step_us"]["value"]
    lines = [
        "| environment | version | step (µs) | lowest to highest | to ours | steps/s | wall (µs) | reset (µs) |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in figures["rows"]:
        step = row["step_us"]
        lines.append(
            f"| {row['name']} | {row['version']} | {step['value']:.1f} | {step['spread'][0]:.1f} to "
            f"{step['spread'][1]:.1f} | {step['value'] / ours:.2f} | {row['steps_per_second']:,} | "
            f"{row['step_wall_us']['value']:.1f} | {row['reset_us']['value']:.1f} |"
        )
    faster = [row["name"] for row in figures["rows"] if row["step_us"]["value"] < ours]
    met = "met" if ours <= figures["aim_us"] and not faster else "not met"
    return "\n\n".join(
        [
            "# Environment: what a step costs",
            "\n".join(lines),
            f"The aim for ours is {figures['aim_us']:g} µs a step and slot, and to be the fastest: {met}, at "
            f"{ours:.1f} µs; {', '.join(faster) or 'none'} took less.",
            _NOTES.strip(),
            "\n".join(f"* {row['name']}: {row['settings']}." for row in figures["rows"]),
            "\n".join(f"* {name} is not here: {why}." for name, why in ABSENT.items()),
            "\n".join(f"* {key}: {figures[key]}" for key in ("command", "date", "machine")) + "\n",
        ]
    )


def _spread(measured: Sequence[Mapping[str, float]], key: str) -> dict[str, Any]:
    raw = [round(one[key], 3) for one in measured]
    return {"value": round(median(raw), 3), "spread": [min(raw), max(raw)], "raw": raw}


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine()


def _peer(value: str) -> tuple[str, str]:
    name, _, python = value.partition("=")
    if name not in PEERS or not python:
        raise argparse.ArgumentTypeError(f"write NAME=PYTHON, NAME one of {', '.join(PEERS)}; got {value!r}")
    return name, python


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--peer", type=_peer, action="append", default=[], metavar="NAME=PYTHON",
        help=f"play a peer as well, in the Python where it is installed: {', '.join(PEERS)}",
    )  # fmt: skip
    parser.add_argument("--episodes", type=int, default=10, help="episodes of a slot in a measurement (default: 10)")
    parser.add_argument("--repeats", type=int, default=9, help="measurements of each environment (default: 9)")
    parser.add_argument("--write", action="store_true", help=f"keep the figures in {RESULTS.name}/ as JSON, Markdown")
    return parser


if __name__ == "__main__":
    main()

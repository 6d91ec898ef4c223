"""Keep what a sweep reached: every trial, the plot, and what the winner is worth on questions that did not choose it.

    search-env tune --config asha --out outputs/asha
    search-env train --config outputs/asha/best.yaml --evaluation.split test --out outputs/won
    python benchmarks/sweep.py outputs/asha --winner outputs/won

Writes benchmarks/results/sweeps/NAME, the NAME of the sweep: README.md, sweep.json, sweep.csv and the plots. Run it
where the sweep ran, for the page tells the machine.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from search_agents.evaluation.report import table

from benchmarks.environment import about

RESULTS = Path(__file__).parent / "results" / "sweeps"
Json = Mapping[str, Any]


def main(argv: Sequence[str] | None = None) -> None:
    """Read the sweep, write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path, help="folder of a sweep that is over")
    parser.add_argument("--winner", type=Path, metavar="RUN", help="run that was trained with its best.yaml")
    parser.add_argument("--remark", help="what else a reader must know of how it was made")
    parser.add_argument("--out", type=Path, default=RESULTS, help="where the folder of the sweep is made")
    arguments = parser.parse_args(argv)
    sweep: Json = json.loads((arguments.sweep / "config.json").read_text(encoding="utf-8"))["sweep"]
    with (arguments.sweep / "sweep.csv").open(encoding="utf-8", newline="") as file:
        trials = list(csv.DictReader(file))
    won = json.loads((arguments.winner / "summary.json").read_text(encoding="utf-8")) if arguments.winner else None
    folder = arguments.out / sweep["name"]
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("sweep.json", "sweep.csv", "plots/curves.png", "plots/fields.png"):
        shutil.copy(arguments.sweep / name, folder)
    (folder / "README.md").write_text(page(sweep, trials, won, arguments.remark), encoding="utf-8")
    print(folder / "README.md")


def page(sweep: Json, trials: Sequence[Mapping[str, str]], won: Json | None, remark: str | None) -> str:
    """The README: how it was done, every trial, the winner."""
    where, settings = about([]), sweep["settings"]
    seconds = sum(float(trial["seconds"]) for trial in trials)
    fixed = ", ".join(f"{key} {value}" for key, value in settings.items())
    return (
        "\n\n".join(
            [
                f"# {sweep['name']}",
                f"`search-env tune --config {sweep['name']}`, {where['date'][:10]}, {where['machine']}. {len(trials)} "
                f"trials of the recipe {sweep['recipe']} with {fixed}, scheduler {sweep['scheduler']}, "
                f"{sweep['concurrent']} at a time; {seconds / 60:.0f} minutes of training. An iteration is "
                f"{sweep['steps_per_iteration']} steps. The metric is {sweep['metric']}; the best trial comes first.",
                *filter(None, [remark]),
                table(*_rows(trials)),
                *_winner(trials, won),
            ]
        )
        + "\n"
    )


def _rows(trials: Sequence[Mapping[str, str]]) -> tuple[list[str], list[list[str]]]:
    header = [key for key in trials[0] if key != "error"]
    return header, [[_short(trial[key]) for key in header] for trial in trials]


def _short(value: str) -> str:
    try:
        return f"{float(value):.4g}"
    except ValueError:
        return value


def _winner(trials: Sequence[Mapping[str, str]], won: Json | None) -> Iterator[str]:
    if won is not None:
        asked, after = won["environment"], won["after"]
        yield (
            f"Trained anew with the values of trial {trials[0]['trial']}, the model has F1 {after['f1']:.3f} and EM "
            f"{after['em']:.3f} on {asked['questions']} {asked['split']} questions, which chose nothing."
        )


if __name__ == "__main__":
    main()

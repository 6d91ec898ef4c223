"""What a sweep leaves: a row for each trial, whatever became of it, as JSON, CSV, table and plots.

::

    outputs/asha-20260101-120000/
    ├── config.json     the sweep and the recipe, resolved
    ├── sweep.json      every trial: values, metric after each iteration, status, seconds, error, newest checkpoint
    ├── sweep.csv       the same without the curves, best trial first
    ├── best.yaml       the recipe with the best trial's values, for `search-env train --config`
    ├── plots/          PNG and SVG
    └── ray/            Ray Tune's own files, pickled: what goes on with a stopped sweep; a folder for each trial
"""

from __future__ import annotations

import csv
import io
import json
import logging
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from ray import tune

from search_agents.config import TrainConfig
from search_agents.config.tuning import SweepConfig, with_settings
from search_agents.evaluation.plots import plot_sweep
from search_agents.evaluation.report import table
from search_agents.learning.run_folder import read_jsonl, write_json, write_text
from search_agents.tuning.loggers import numbers, trial_number

__all__ = ["is_over", "read_reports", "trial_rows", "write_results"]

Row = dict[str, Any]

_FINISHED, _STOPPED, _FAILED, _UNFINISHED = "finished", "stopped early", "failed", "unfinished"
_COLUMNS = ("trial", "status", "iterations", "last", "best", "best_iteration", "seconds")


def trial_rows(sweep: SweepConfig, out: Path) -> list[Row]:
    """One row a trial, in the order in which they were drawn.

    Args:
        sweep: The sweep.
        out: Its folder, in which Ray Tune has written its state.
    """
    # It warns of trials that have no metrics; the table has them all.
    logging.getLogger("ray.tune.analysis.experiment_analysis").setLevel(logging.ERROR)
    # Unlike its results, Tune's trials tell their values even if they never came to report any.
    trials = tune.ExperimentAnalysis(str((out / "ray").resolve())).trials
    return sorted((_row(trial, sweep, out) for trial in trials), key=lambda row: row["trial"])


def is_over(rows: Sequence[Row], sweep: SweepConfig) -> bool:
    """Whether every trial has been drawn and has come to its end, be it a failure."""
    expected = sweep.samples * math.prod(len(draw.grid) for draw in sweep.space.values() if draw.grid is not None)
    return len(rows) == expected and all(row["status"] != _UNFINISHED for row in rows)


def write_results(rows: Sequence[Row], sweep: SweepConfig, recipe: TrainConfig, out: Path) -> str:
    """Write everything that can be told of the trials; returns the table."""
    best_first = _ranked(rows, sweep)
    write_json(out / "sweep.json", {"metric": sweep.metric, "mode": sweep.mode, "trials": list(rows)})
    write_text(out / "sweep.csv", _csv(best_first, list(sweep.space)))
    plot_sweep(
        [row for row in best_first if row["curve"]],
        {key: "log" if draw.loguniform else "linear" if draw.bounds else "list" for key, draw in sweep.space.items()},
        out / "plots",
        metric=sweep.metric,
    )
    return "\n\n".join([_table(best_first, sweep), *_failures(rows), *_write_best(best_first, recipe, out)])


def _row(trial: Any, sweep: SweepConfig, out: Path) -> Row:
    reports = read_reports(Path(trial.path))
    last = reports[-1] if reports else {}
    curve = [(report["training_iteration"], _metric(report, sweep.metric)) for report in reports]
    measured = [(value, iteration) for iteration, value in curve if value is not None]
    choose = max if sweep.mode == "max" else min
    # Of equal values the first: it was the cheaper one to reach.
    best, best_iteration = choose(measured, key=lambda pair: pair[0], default=(None, None))
    status = _status(trial, last, sweep)
    return {
        "trial": trial_number(trial),
        "status": status,
        "config": dict(trial.config),
        "changes": _changes(reports),
        "iterations": last.get("training_iteration", 0),
        "steps": last.get("steps", 0),
        "last": curve[-1][1] if curve else None,
        "best": best,
        "best_iteration": best_iteration,
        "seconds": round(last.get("time_total_s", 0.0), 1),
        "error": _last_line(str(trial.get_error())) if status == _FAILED else None,
        "folder": _below(out, trial.path),
        "checkpoint": None if trial.checkpoint is None else _below(out, trial.checkpoint.path),
        "curve": curve,
    }


def read_reports(folder: Path) -> list[Row]:
    """What a trial has reported after each iteration; of one that was done twice, after a stop or by pbt, the later.

    Args:
        folder: The trial's own, in Ray Tune's; without a report if it never came to one.
    """
    by_iteration = {report["training_iteration"]: report for report in read_jsonl(folder / "result.json")}
    return [by_iteration[iteration] for iteration in sorted(by_iteration)]


def _metric(report: Row, metric: str) -> float | None:
    value = numbers(report).get(metric)
    return value if value is not None and math.isfinite(value) else None


def _status(trial: Any, last: Row, sweep: SweepConfig) -> str:
    if trial.status == "ERROR":
        return _FAILED
    if trial.status != "TERMINATED":
        return _UNFINISHED
    whole = last.get("stages_finished") or last.get("training_iteration", 0) >= sweep.max_iterations
    return _FINISHED if whole else _STOPPED


def _changes(reports: Sequence[Row]) -> list[Row]:
    """The values that pbt has changed, with the first iteration under them."""
    return [
        {"iteration": after["training_iteration"], "config": after["config"]}
        for before, after in pairwise(reports)
        if after["config"] != before["config"]
    ]


def _last_line(text: str) -> str:
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "unknown error")


def _below(folder: Path, path: str) -> str:
    return str(Path(path).relative_to(folder.resolve()))


def _ranked(rows: Sequence[Row], sweep: SweepConfig) -> list[Row]:
    """Best last metric first, for that is what a trial's checkpoint reaches; those that failed or have none, last."""
    sign = -1 if sweep.mode == "max" else 1

    def place(row: Row) -> tuple[bool, bool, float]:
        return row["last"] is None, row["status"] == _FAILED, sign * (row["last"] or 0.0)

    return sorted(rows, key=place)


def _csv(rows: Sequence[Row], fields: Sequence[str]) -> str:
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow([*_COLUMNS, *fields, "error"])
    for row in rows:
        values = (row["config"].get(key) for key in fields)
        drawn = [json.dumps(value) if isinstance(value, dict | list) else value for value in values]
        writer.writerow([*(row[name] for name in _COLUMNS), *drawn, row["error"]])
    return stream.getvalue()


def _table(rows: Sequence[Row], sweep: SweepConfig) -> str:
    header = ["trial", *sweep.space, "status", "iterations", f"{sweep.metric}, last", "best", "seconds"]
    cells = [
        [
            str(row["trial"]),
            *(_cell(row["config"].get(key)) for key in sweep.space),
            row["status"],
            str(row["iterations"]),
            _cell(row["last"]),
            _cell(row["best"]),
            f"{row['seconds']:.0f}",
        ]
        for row in rows
    ]
    return table(header, cells)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else value if isinstance(value, str) else json.dumps(value)


def _failures(rows: Sequence[Row]) -> list[str]:
    failed = [f"trial {row['trial']}: {row['error']} (more in {row['folder']})" for row in rows if row["error"]]
    return ["\n".join(["Failed; the same command tries again:", *failed])] if failed else []


def _write_best(rows: Sequence[Row], recipe: TrainConfig, out: Path) -> list[str]:
    """Write the recipe of the best trial; returns how to train with it."""
    if not rows or rows[0]["last"] is None:
        return []
    best = rows[0]
    config = with_settings(recipe.model_dump(mode="json"), best["config"]).model_dump(mode="json")
    drawn = ", ".join(f"{key} {_cell(value)}" for key, value in best["config"].items())
    head = f"# The values of trial {best['trial']}, the best of a sweep: {drawn}.\n"
    write_text(out / "best.yaml", head + yaml.safe_dump(config, sort_keys=False))
    return [f"Train with the values of trial {best['trial']}: search-env train --config {out / 'best.yaml'}"]

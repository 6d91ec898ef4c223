"""Keep what training runs of one recipe reached: figures of every seed, their mean, and the curves.

    search-env train --config configs/train/fictional-wiki.yaml --seed 1 --out outputs/seed1
    python benchmarks/results/collect.py outputs/seed0 outputs/seed1 outputs/seed2 --name fictional-wiki

Writes benchmarks/results/NAME: README.md, training.png and training.svg with a band over the
seeds, and for each seed its metrics by step and its summary.json.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from search_agents.evaluation.plots import plot_training
from search_agents.evaluation.report import METHOD_ROWS, table
from search_agents.learning.run_folder import RunFolder

RESULTS = Path(__file__).parent
SCORES = {
    "F1": "f1",
    "EM": "em",
    "search rate": "search_rate",
    "format rate": "format_rate",
    "searches/q": "searches_per_question",
}
Json = Mapping[str, Any]


def main() -> None:
    """Read the runs, write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="finished run folders of one recipe")
    parser.add_argument("--name", required=True, help="folder below benchmarks/results")
    arguments = parser.parse_args()
    runs = [RunFolder(path) for path in arguments.runs]
    summaries = [json.loads((path / "summary.json").read_text()) for path in arguments.runs]
    for summary in summaries:
        # Folders of a machine mean nothing elsewhere.
        del summary["commands"]
        summary["model"] = Path(summary["model"]).name
    folder = RESULTS / arguments.name
    folder.mkdir(parents=True, exist_ok=True)
    plot_training([run.metrics() for run in runs], folder)
    for run, summary in zip(runs, summaries, strict=True):
        lines = "".join(json.dumps(row) + "\n" for row in run.metrics())
        (folder / f"metrics-seed{summary['seed']}.jsonl").write_text(lines)
        (folder / f"summary-seed{summary['seed']}.json").write_text(json.dumps(summary, indent=1) + "\n")
    text = page(arguments.name, [run.meta() for run in runs], summaries)
    (folder / "README.md").write_text(text)
    print(text)


def page(name: str, metas: Sequence[Json], summaries: Sequence[Json]) -> str:
    """The README of a results folder."""
    first = summaries[0]
    asked = first["environment"]
    runs = [origin(meta) for meta in metas]
    temperature = first["after"]["temperature"]
    decoding = f"sampled at temperature {temperature:g}" if temperature else "decoded greedily"
    parts = [
        f"# {name}",
        "\n".join(
            f"* `{run['command']}`, {run['date']}: {s['seconds']:.0f} s" for run, s in zip(runs, summaries, strict=True)
        ),
        f"Machine: {runs[0]['machine']}. {asked['questions']} held-out questions of "
        f"{asked['id']} ({asked['split']}), {decoding}; the mean of the seeds "
        f"{', '.join(str(s['seed']) for s in summaries)}, with lowest and highest where they differ.",
        "![curves](training.png)",
        table(["method", *SCORES], list(method_rows(summaries))),
        *(table(*group_rows(summaries, group)) for group in ("by_kind", "by_hops") if first["after"][group]),
        *other_temperatures(summaries),
    ]
    recall = first["question_as_query_recall"]
    if recall and recall["all_gold_rate_multi_hop"] is not None:
        parts.append(
            f"Question-as-query BM25 finds all gold passages in its top {recall['top_k']} for "
            f"{recall['all_gold_rate_multi_hop']:.0%} of the multi-hop questions."
        )
    return "\n\n".join(parts) + "\n"


def method_rows(summaries: Sequence[Json]) -> list[list[str]]:
    """A row for each method, then for each floor."""
    rows: list[tuple[str, tuple[str, ...]]] = [(label, (key,)) for key, label in METHOD_ROWS if key in summaries[0]]
    rows += [(f"floor: {name.replace('_', ' ')}", ("floors", name)) for name in summaries[0]["floors"]]
    return [[label, *(spread(summaries, *path, field) for field in SCORES.values())] for label, path in rows]


def group_rows(summaries: Sequence[Json], group: str) -> tuple[list[str], list[list[str]]]:
    """F1 by kind of question or number of hops: header and rows."""
    columns = [("before",), ("rag",), ("stage1",), ("after",), *(("floors", name) for name in summaries[0]["floors"])]
    header = [group.removeprefix("by_"), "n", *(f"F1 {path[-1].replace('_', ' ')}" for path in columns)]
    rows = [
        [str(name), str(scores["n"]), *(spread(summaries, *path, group, name, "f1") for path in columns)]
        for name, scores in summaries[0]["after"][group].items()
    ]
    return header, rows


def other_temperatures(summaries: Sequence[Json]) -> list[str]:
    """F1 of the agent at each further temperature, before and after."""
    return [
        f"At temperature {name}: F1 {spread(summaries, 'temperatures', name, 'before', 'f1')} before, "
        f"{spread(summaries, 'temperatures', name, 'after', 'f1')} after."
        for name in summaries[0].get("temperatures", {})
    ]


def without_folders(command: str) -> str:
    """A command without its run folder, and with the names of other folders only."""
    return re.sub(r"(?<= )/\S*/", "", command.partition(" --out ")[0])


def origin(meta: Json) -> dict[str, str]:
    """How, when and where a run was made: its ``command``, ``date`` and ``machine``."""
    machine = meta["machine"]
    return {
        "command": without_folders(meta["command"]),
        "date": meta["started"][:10],
        "machine": f"{machine['cores']} cores of {machine['processor']}",
    }


def spread(summaries: Sequence[Json], *path: str) -> str:
    """The mean of a figure over the seeds, with lowest and highest if they differ; ``-`` where there is none."""
    values = [value for summary in summaries if (value := _at(summary, path)) is not None]
    if not values:
        return "-"
    low, high = f"{min(values):.3f}", f"{max(values):.3f}"
    return f"{mean(values):.3f}" + (f" ({low} to {high})" if low != high else "")


def _at(summary: Json, path: Sequence[str]) -> float | None:
    value: Any = summary
    for key in path:
        value = value.get(key, {})
    return None if value == {} else float(value)


if __name__ == "__main__":
    main()

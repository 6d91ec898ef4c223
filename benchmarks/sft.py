"""Supervised against reinforcement learning: what each reached on the same held-out questions, and from how much.

    search-env sample --config fictional-wiki --seed 0 --out outputs/right0
    search-env sft --config fictional-wiki --trajectories outputs/right0 --seed 0 --out outputs/sft0
    python benchmarks/sft.py outputs/sft0 outputs/sft1 outputs/sft2 --against fictional-wiki --write

Reads finished runs of `search-env sft`, and the results of reinforcement learning that are kept in
benchmarks/results/NAME. The evaluation must be the same: questions, documents, budgets, temperatures.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean
from typing import Any

from search_agents.config import TrainConfig, differing_keys, find_recipe, load_config
from search_agents.config.sections import LearnerSection
from search_agents.evaluation.report import table
from search_agents.learning.run_folder import RunFolder

RESULTS = Path(__file__).parent / "results"
Json = Mapping[str, Any]

SCORES = {"F1": "f1", "EM": "em", "search rate": "search_rate", "format rate": "format_rate"}
COSTS = {"episodes sampled": "sampled", "learnt from": "learnt_from", "optimizer steps": "optimizer_steps"}


def main(argv: Sequence[str] | None = None) -> None:
    """Read the runs, print the table, and keep it if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="finished run folders of `search-env sft`, one a seed")
    parser.add_argument(
        "--against",
        required=True,
        metavar="NAME",
        help="a recipe of `search-env train`, with its results in benchmarks/results",
    )
    parser.add_argument("--write", action="store_true", help="keep the result in results/NAME-sft as JSON and Markdown")
    arguments = parser.parse_args(argv)

    supervised = [read_supervised(RunFolder.open(path)) for path in arguments.runs]
    learner = load_config(TrainConfig, [find_recipe(arguments.against, "train")]).learner
    files = sorted((RESULTS / arguments.against).glob("summary-seed*.json"))
    reinforced = [read_reinforced(file, learner) for file in files]
    for run in (*supervised, *reinforced):
        first = {key: value for key, value in supervised[0]["environment"].items() if key in run["environment"]}
        if keys := differing_keys(first, run["environment"]):
            sys.exit(f"the runs cannot be compared: their evaluations differ in {', '.join(keys)}.")
    about = {
        "command": "python benchmarks/sft.py " + " ".join(sys.argv[1:] if argv is None else argv),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    text = page(arguments.against, about, supervised, reinforced)
    print(text)
    if arguments.write:
        found = {**about, "sft": supervised, "reinforcement": reinforced}
        (RESULTS / f"{arguments.against}-sft.json").write_text(json.dumps(found, indent=1) + "\n")
        (RESULTS / f"{arguments.against}-sft.md").write_text(text)


def read_supervised(folder: RunFolder) -> dict[str, Any]:
    """The figures of one supervised run."""
    summary, meta = json.loads((folder.path / "summary.json").read_text()), folder.meta()
    imitated = summary["imitated"]
    return {
        **scores_of(summary),
        "sampled": imitated["sampling"]["counts"]["sampled"],
        "learnt_from": imitated["episodes"],
        "optimizer_steps": len(folder.metrics()),
        "seconds": summary["seconds"],
        "started": meta["started"],
        "machine": meta["machine"],
        "imitated": {key: value for key, value in imitated.items() if key != "sampling"},
        "sampling": {"counts": imitated["sampling"]["counts"], "keep": imitated["sampling"]["config"]["keep"]},
    }


def read_reinforced(file: Path, learner: LearnerSection) -> dict[str, Any]:
    """The figures of one run of reinforcement learning: every episode is sampled, and learnt from."""
    summary = json.loads(file.read_text())
    steps, episodes = sum(summary["steps"].values()), learner.prompts_per_batch * learner.group_size
    return {
        **scores_of(summary),
        "sampled": steps * episodes,
        "learnt_from": steps * episodes,
        "optimizer_steps": steps * -(-episodes // learner.minibatch_size),
        "seconds": summary["seconds"],
    }


def scores_of(summary: Json) -> dict[str, Any]:
    """Seed, evaluation, and the scores before and after at each temperature."""
    headline = f"{summary['after']['temperature']:g}"
    found = {headline: summary, **summary.get("temperatures", {})}
    kept = ("f1", "em", "search_rate", "format_rate", "by_hops")
    scores = {
        temperature: {when: {key: each[when][key] for key in kept} for when in ("before", "after")}
        for temperature, each in found.items()
    }
    return {"seed": summary["seed"], "environment": summary["environment"], "scores": scores}


def page(name: str, about: Json, supervised: Sequence[Json], reinforced: Sequence[Json]) -> str:
    """The Markdown of the comparison."""
    rows = {"untrained": ("before", supervised), "SFT": ("after", supervised), "RL": ("after", reinforced)}
    parts = [f"# {name}: supervised against reinforcement learning"]
    for temperature in supervised[0]["scores"]:
        decoding = "greedy" if temperature == "0" else f"temperature {temperature}"
        cells = [
            [label, *(spread([run["scores"][temperature][when][key] for run in runs]) for key in SCORES.values())]
            for label, (when, runs) in rows.items()
        ]
        parts.append(table([decoding, *SCORES], cells))
    headline = next(iter(supervised[0]["scores"]))
    hops = sorted(supervised[0]["scores"][headline]["after"]["by_hops"])
    by_hops = [
        [label, *(spread([r["scores"][headline][when]["by_hops"][hop]["f1"] for r in runs]) for hop in hops)]
        for label, (when, runs) in rows.items()
    ]
    parts.append(table(["F1 by hops", *hops], by_hops))
    learnt = {"SFT": supervised, "RL": reinforced}
    costs = [
        [label, *(spread([run[key] for run in runs], "{:,.0f}") for key in COSTS.values())]
        for label, runs in learnt.items()
    ]
    parts.append(table(["cost", *COSTS], costs))
    asked, machine = supervised[0]["environment"], supervised[0]["machine"]
    seeds = {label: ", ".join(str(run["seed"]) for run in runs) for label, runs in learnt.items()}
    notes = {
        **about,
        "seeds": f"SFT {seeds['SFT']}; RL {seeds['RL']}; the mean, with lowest and highest where they differ",
        "questions": f"{asked['questions']} held-out ones of {asked['id']} ({asked['split']})",
        "SFT runs": f"begun {supervised[0]['started'][:10]} on {machine['cores']} cores of {machine['processor']}",
        "kept": f"episodes by the rule {json.dumps(supervised[0]['sampling']['keep'])}",
    }
    return "\n\n".join([*parts, "\n".join(f"* {key}: {value}" for key, value in notes.items())]) + "\n"


def spread(values: Sequence[float], layout: str = "{:.3f}") -> str:
    """The mean, and the range where there is one."""
    low, middle, high = (layout.format(value) for value in (min(values), mean(values), max(values)))
    return middle if low == high else f"{middle} ({low} to {high})"


if __name__ == "__main__":
    main()

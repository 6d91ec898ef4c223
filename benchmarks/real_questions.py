"""A trained model on the real question sets, beside every method of the same model that was not trained.

    search-env bench methods --methods '[r1-searcher]' --model outputs/warm --env.prompt bare --out outputs/warm-asked
    search-env bench methods --methods '[r1-searcher]' --model outputs/rl --env.prompt bare --out outputs/rl-asked
    python benchmarks/real_questions.py --imitation outputs/warm-asked --rl outputs/rl-asked \
      --runs outputs/warm outputs/rl --write

The runs are those that trained the two models: their commands, times and curves are kept with the table. The methods
without training are those of benchmarks/results/methods. That sets, number of questions, retriever, k and budgets are
the same is checked; only the prompt differs, for a trained model needs no explanation. A comparison of a copy of the
RL's run from before it was made longer gives one more row: --earlier STEPS FOLDER.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from search_agents.evaluation.paired import compare_runs, read_run
from search_agents.evaluation.plots import plot_training
from search_agents.evaluation.report import table
from search_agents.evaluation.resampling import Difference
from search_agents.learning.run_folder import RunFolder

from benchmarks.methods import require_same_setting
from benchmarks.results.collect import without_folders

RESULTS = Path(__file__).parent / "results"
METRICS = {"ACC_R": "cem", "F1": "f1"}
MADE_UP = "FictionalWiki-v0"
BOUNDS = ("oracle", "random")
"""Rows that are no methods of a model."""
IMITATION = "imitation of annotated ways"
RL = "RL after that"
AIM = {"HotpotQA-v0": 48, "2WikiMultiHopQA-v0": 22}
"""Relative gain in ACC_R, in percent, over the best method without RL."""
_HELD_OUT = {"f1": "F1", "cem": "ACC_R", "search_rate": "search rate", "format_rate": "format rate"}
Json = Mapping[str, Any]


def main(argv: Sequence[str] | None = None) -> None:
    """Put the table together."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", type=Path, default=RESULTS / "methods", help="comparison of the untrained model")
    parser.add_argument("--imitation", type=Path, required=True, help="comparison of the model after its warm-up")
    parser.add_argument("--rl", type=Path, required=True, help="comparison of the model after RL")
    parser.add_argument(
        "--earlier", nargs=2, metavar=("STEPS", "FOLDER"), help="comparison of the model after its first STEPS of RL"
    )
    parser.add_argument("--runs", type=Path, nargs=2, required=True, help="run folders of the imitation and of the RL")
    parser.add_argument("--remark", default="", help="what else a reader must know")
    parser.add_argument("--write", action="store_true", help=f"keep it in {RESULTS.name}/")
    arguments = parser.parse_args(argv)
    runs = [RunFolder(folder) for folder in arguments.runs]
    trained = [_training(run) for run in runs]
    untrained = _results(arguments.methods)
    models = {IMITATION: _results(arguments.imitation)}
    if arguments.earlier:
        models[_after(arguments.earlier[0])] = _results(Path(arguments.earlier[1]))
    models[_after(trained[1]["steps"])] = _results(arguments.rl)
    for model in models.values():
        require_same_setting(untrained["config"], model["config"])
    shared = [
        name
        for name in untrained["sets"]
        if name != MADE_UP and all(name in model["sets"] for model in models.values())
    ]
    rows = {name: _rows(untrained, models, name) for name in shared}
    gained = {name: _paired(arguments.imitation, arguments.rl, name) for name in shared}
    text = page(rows, untrained["config"], trained, gained, arguments.remark)
    print(text)
    if arguments.write:
        sets = {name: {method: _figures(row) for method, row in found.items()} for name, found in rows.items()}
        kept = {"config": untrained["config"], "remark": arguments.remark, "training": trained, "sets": sets}
        kept["paired"] = {name: {key: asdict(each) for key, each in found.items()} for name, found in gained.items()}
        (RESULTS / "real-questions.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        (RESULTS / "real-questions.md").write_text(text, encoding="utf-8")
        curves = RESULTS / "real-questions"
        curves.mkdir(exist_ok=True)
        plot_training([runs[1].metrics()], curves)
        for name, run in zip(("imitation", "rl"), runs, strict=True):
            lines = [json.dumps(row) + "\n" for row in run.metrics()]
            (curves / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


def _results(folder: Path) -> Any:
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def _after(steps: int | str) -> str:
    return f"{RL}, {steps} steps"


def _figures(row: Json) -> Json:
    """What the page tells of a row; the rest lies with the comparison that it comes from."""
    return {key: row[key] for key in (*METRICS.values(), "n")}


def _training(run: RunFolder) -> dict[str, Any]:
    """How a model was trained, and what its run measured on held-out questions of the sets that it was trained on."""
    meta = run.meta()
    summary = json.loads((run.path / "summary.json").read_text(encoding="utf-8"))
    machine = meta["machine"]
    told = {name: {key: summary[name][key] for key in _HELD_OUT} for name in ("before", "after")}
    return {
        "command": without_folders(meta["command"]),
        "date": meta["started"][:10],
        "minutes": round(summary["seconds"] / 60),
        "machine": f"{machine['cores']} cores of {machine['processor']}",
        "steps": len(run.metrics()),
        "questions": summary["after"]["n"],
        **told,
    }


def _rows(untrained: Json, models: Mapping[str, Json], name: str) -> dict[str, Json]:
    rows = {method: row for method, row in untrained["sets"][name].items() if method not in BOUNDS}
    rows |= {label: model["sets"][name]["r1-searcher"] for label, model in models.items()}
    if len({row["n"] for row in rows.values()}) > 1:
        asked = ", ".join(f"{method} {row['n']}" for method, row in rows.items())
        raise SystemExit(f"not all were asked as many questions of {name}: {asked}")
    return rows


def _paired(imitation: Path, rl: Path, name: str) -> dict[str, Difference]:
    """What RL gained over the imitation on one set, question by question."""
    found = compare_runs(*(read_run(folder / name / "r1-searcher") for folder in (imitation, rl)))
    return {key: found.metrics[key] for key in METRICS.values()}


def page(
    sets: Mapping[str, Mapping[str, Json]],
    config: Json,
    trained: Sequence[Json],
    gained: Mapping[str, Mapping[str, Difference]],
    remark: str,
) -> str:
    """The table of all sets, what RL gained on each, and how the models were trained."""
    env, model = config["env"], Path(config["model"]["path"]).name
    methods = dict.fromkeys(method for rows in sets.values() for method in rows)
    head = ["method", *(f"{name.removesuffix('-v0')} {metric}" for name in sets for metric in METRICS)]
    parts = [
        "# A trained model on real questions",
        f"{model}, {config['evaluation']['questions']} questions of each set, {env['retriever']}, k = {env['top_k']}, "
        f"at most {env['max_searches']} searches, greedy.",
        *([remark] if remark else []),
        table(head, [[method, *_cells(method, sets)] for method in methods]),
        *gains(sets),
        "RL minus imitation, question by question (95 % interval of a paired bootstrap; p of a permutation test, not "
        "corrected for how many there are):",
        table(["set", *METRICS], [[name.removesuffix("-v0"), *_differences(found)] for name, found in gained.items()]),
        "\n".join(f"* {kind}: {_told(run)}" for kind, run in zip(("imitation", "RL"), trained, strict=True)),
        "![Rewards, scores and searches of the RL, step by step](real-questions/training.png)",
    ]
    return "\n\n".join(parts) + "\n"


def _told(run: Json) -> str:
    figures = ", ".join(
        f"{label} {run['before'][key]:.3f} before and {run['after'][key]:.3f} after" for key, label in _HELD_OUT.items()
    )
    return (
        f"`{run['command']}`, {run['date']}, {run['minutes']} minutes on {run['machine']}, {run['steps']} steps; on "
        f"{run['questions']} held-out questions of the sets it was trained on: {figures}."
    )


def _differences(found: Mapping[str, Difference]) -> list[str]:
    return [f"{d.difference:+.3f} ({d.low:+.3f} to {d.high:+.3f}, p = {d.p_value:.2g})" for d in found.values()]


def _cells(method: str, sets: Mapping[str, Mapping[str, Json]]) -> list[str]:
    keys = METRICS.values()
    return [f"{rows[method][key]:.3f}" if method in rows else "-" for rows in sets.values() for key in keys]


def gains(sets: Mapping[str, Mapping[str, Json]]) -> Iterator[str]:
    """A line for each set: what RL gained over all else, over all that is not trained, and over what it began with."""
    for name, rows in sets.items():
        scores = {method: row["cem"] for method, row in rows.items()}
        *_, reached = scores.values()
        without = {method: score for method, score in scores.items() if not method.startswith(RL)}
        best, score = max(without.items(), key=lambda other: other[1])
        began = without.pop(IMITATION)
        untrained, untrained_score = max(without.items(), key=lambda other: other[1])
        aim = f" where {AIM[name]:+d} % was the aim" if name in AIM else ""
        told = (
            f"ACC_R {reached:.3f}",
            f"{_gain(reached, score)} over the best without RL ({best}){aim}",
            f"{_gain(reached, untrained_score)} over the best that is not trained ({untrained})",
            f"{_gain(reached, began)} over the imitation that it began with",
        )
        yield f"{name.removesuffix('-v0')}: {', '.join(told)}."


def _gain(reached: float, other: float) -> str:
    return f"{100 * (reached / other - 1):+.0f} %" if other else f"{reached:+.3f}"


if __name__ == "__main__":
    main()

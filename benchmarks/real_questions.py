"""A trained model on the real question sets, beside every method of the same model that was not trained.

    search-env bench methods --methods '[r1-searcher]' --model outputs/warm --env.prompt bare --out outputs/warm-asked
    search-env bench methods --methods '[r1-searcher]' --model outputs/rl --env.prompt bare --out outputs/rl-asked
    python benchmarks/real_questions.py --imitation outputs/warm-asked --rl outputs/rl-asked \
      --runs outputs/warm outputs/rl --write

The runs are those that trained the two models: their commands, times and curves are kept with the table. The methods
without training are those of benchmarks/results/methods. That sets, number of questions, retriever, k and budgets are
the same is checked; only the prompt differs, for a trained model needs no explanation.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from search_agents.evaluation.plots import plot_training
from search_agents.evaluation.report import table
from search_agents.learning.run_folder import RunFolder

from benchmarks.methods import require_same_setting
from benchmarks.results.collect import without_folders

RESULTS = Path(__file__).parent / "results"
METRICS = {"ACC_R": "cem", "F1": "f1"}
MADE_UP = "FictionalWiki-v0"
BOUNDS = ("oracle", "random")
"""Rows that are no methods of a model."""
IMITATION = "imitation of annotated ways"
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
    parser.add_argument("--runs", type=Path, nargs=2, required=True, help="run folders of the imitation and of the RL")
    parser.add_argument("--remark", default="", help="what else a reader must know")
    parser.add_argument("--write", action="store_true", help=f"keep it in {RESULTS.name}/")
    arguments = parser.parse_args(argv)
    untrained, imitation, rl = (
        json.loads((folder / "results.json").read_text(encoding="utf-8"))
        for folder in (arguments.methods, arguments.imitation, arguments.rl)
    )
    for trained in (imitation, rl):
        require_same_setting(untrained["config"], trained["config"])
    shared = [
        name for name in untrained["sets"] if name in imitation["sets"] and name in rl["sets"] and name != MADE_UP
    ]
    rows = {name: _rows(untrained, imitation, rl, name) for name in shared}
    runs = [RunFolder(folder) for folder in arguments.runs]
    trained = [_training(run) for run in runs]
    text = page(rows, untrained["config"], trained, arguments.remark)
    print(text)
    if arguments.write:
        sets = {name: {method: _figures(row) for method, row in found.items()} for name, found in rows.items()}
        kept = {"config": untrained["config"], "remark": arguments.remark, "training": trained, "sets": sets}
        (RESULTS / "real-questions.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        (RESULTS / "real-questions.md").write_text(text, encoding="utf-8")
        curves = RESULTS / "real-questions"
        curves.mkdir(exist_ok=True)
        plot_training([runs[1].metrics()], curves)
        for name, run in zip(("imitation", "rl"), runs, strict=True):
            lines = [json.dumps(row) + "\n" for row in run.metrics()]
            (curves / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")


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


def _rows(untrained: Json, imitation: Json, rl: Json, name: str) -> dict[str, Json]:
    rows = {
        **{method: row for method, row in untrained["sets"][name].items() if method not in BOUNDS},
        IMITATION: imitation["sets"][name]["r1-searcher"],
        "RL after that": rl["sets"][name]["r1-searcher"],
    }
    if len({row["n"] for row in rows.values()}) > 1:
        asked = ", ".join(f"{method} {row['n']}" for method, row in rows.items())
        raise SystemExit(f"not all were asked as many questions of {name}: {asked}")
    return rows


def page(sets: Mapping[str, Mapping[str, Json]], config: Json, trained: Sequence[Json], remark: str) -> str:
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


def _cells(method: str, sets: Mapping[str, Mapping[str, Json]]) -> list[str]:
    keys = METRICS.values()
    return [f"{rows[method][key]:.3f}" if method in rows else "-" for rows in sets.values() for key in keys]


def gains(sets: Mapping[str, Mapping[str, Json]]) -> Iterator[str]:
    """A line for each set: what RL gained over all else, over all that is not trained, and over what it began with."""
    for name, rows in sets.items():
        scores = {method: row["cem"] for method, row in rows.items()}
        *others, (_, began), (_, reached) = scores.items()
        best, score = max([*others, (IMITATION, began)], key=lambda other: other[1])
        untrained, untrained_score = max(others, key=lambda other: other[1])
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

"""A trained model on the real question sets, beside every method of the same model that was not trained.

    search-env bench methods --methods '[r1-searcher]' --model outputs/warm --env.prompt bare --out outputs/warm-asked
    search-env bench methods --methods '[r1-searcher]' --model outputs/rl --env.prompt bare --out outputs/rl-asked
    python benchmarks/real_questions.py --imitation outputs/warm-asked --rl outputs/rl-asked \
      --runs outputs/warm outputs/rl --write

The runs are those that trained the two models: their commands, times and curves are kept with the table. The methods
without training are those of benchmarks/results/methods. That sets, number of questions, retriever, k and budgets are
the same is checked; only the prompt differs, for a trained model needs no explanation. A comparison of a copy of the
RL's run from before it was made longer gives one more row: --earlier STEPS FOLDER.

Of RL from zero, give the comparison of the model that it began with, in the prompt that it was trained with. With
--imitation as well, the same model after imitation instead of RL gets a row:

    python benchmarks/real_questions.py --methods outputs/methods --untrained outputs/untrained-asked \
      --rl outputs/rl-asked --runs outputs/rl --name real-questions-zero --write
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
from benchmarks.results.collect import origin

RESULTS = Path(__file__).parent / "results"
METRICS = {"ACC_R": "cem", "F1": "f1"}
MADE_UP = "FictionalWiki-v0"
BOUNDS = ("oracle", "random")
"""Rows that are no methods of a model."""
IMITATION = "imitation of annotated ways"
UNTRAINED = "r1-searcher, the prompt of the RL"
AIM = {"HotpotQA-v0": 48, "2WikiMultiHopQA-v0": 22}
"""Relative gain in ACC_R, in percent, over the best method without RL."""
_HELD_OUT = {"f1": "F1", "cem": "ACC_R", "search_rate": "search rate", "format_rate": "format rate"}
Json = Mapping[str, Any]


def main(argv: Sequence[str] | None = None) -> None:
    """Put the table together."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", type=Path, default=RESULTS / "methods", help="comparison of the untrained model")
    parser.add_argument("--imitation", type=Path, help="comparison of the model after imitation, RL's beginning")
    parser.add_argument("--untrained", type=Path, help="comparison of the model that RL from zero began with")
    parser.add_argument("--rl", type=Path, required=True, help="comparison of the model after RL")
    parser.add_argument(
        "--earlier", nargs=2, metavar=("STEPS", "FOLDER"), help="comparison of the model after its first STEPS of RL"
    )
    parser.add_argument(
        "--runs", type=Path, nargs="+", required=True, help="run folders: the imitation's, and the RL's"
    )
    parser.add_argument("--name", default="real-questions", help="of the page; begins with real-questions")
    parser.add_argument("--remark", default="", help="what else a reader must know")
    parser.add_argument("--write", action="store_true", help=f"keep it in {RESULTS.name}/")
    arguments = parser.parse_args(argv)
    if not (arguments.imitation or arguments.untrained):
        parser.error("say what the RL began with: --imitation FOLDER or --untrained FOLDER, a comparison of it")
    kinds = ("imitation", "RL") if arguments.imitation else ("RL",)
    if len(arguments.runs) != len(kinds):
        parser.error(f"--runs takes the run folders of {' and '.join(kinds)} here, not {len(arguments.runs)} folders")
    runs = dict(zip(kinds, map(RunFolder, arguments.runs), strict=True))
    untrained, models = _results(arguments.methods), _models(arguments, len(runs["RL"].metrics()))
    for model in models.values():
        require_same_setting(untrained["config"], model["config"])
    shared = [
        name
        for name in untrained["sets"]
        if name != MADE_UP and all(name in model["sets"] for model in models.values())
    ]
    trained = {kind: _training(run) for kind, run in runs.items()}
    sets = {name: _rows(untrained, models, name) for name in shared}
    began = arguments.untrained or arguments.imitation
    gained = {name: _paired(began, arguments.rl, name) for name in shared}
    text = page(sets, untrained["config"], trained, gained, remark=arguments.remark, name=arguments.name)
    print(text)
    if arguments.write:
        _keep(arguments, text, {"config": untrained["config"], "training": trained, "sets": sets, "paired": gained})
        for kind, run in runs.items():
            lines = [json.dumps(row) + "\n" for row in run.metrics()]
            (RESULTS / arguments.name / f"{kind.lower()}.jsonl").write_text("".join(lines), encoding="utf-8")
        plot_training([runs["RL"].metrics()], RESULTS / arguments.name)


def _models(arguments: argparse.Namespace, steps: int) -> dict[str, Any]:
    """The comparisons of the model at its stages, by the label of its row; that after all of the RL comes last."""
    rl = "RL from zero" if arguments.untrained else "RL after that"
    models = {UNTRAINED: arguments.untrained, IMITATION: arguments.imitation}
    if arguments.earlier:
        models[f"{rl}, {arguments.earlier[0]} steps"] = Path(arguments.earlier[1])
    models[f"{rl}, {steps} steps"] = arguments.rl
    return {label: _results(folder) for label, folder in models.items() if folder}


def _keep(arguments: argparse.Namespace, text: str, found: Json) -> None:
    (RESULTS / arguments.name).mkdir(exist_ok=True)
    (RESULTS / f"{arguments.name}.md").write_text(text, encoding="utf-8")
    sets = {name: {method: _figures(row) for method, row in rows.items()} for name, rows in found["sets"].items()}
    paired = {name: {key: asdict(each) for key, each in gained.items()} for name, gained in found["paired"].items()}
    kept = {**found, "remark": arguments.remark, "sets": sets, "paired": paired}
    (RESULTS / f"{arguments.name}.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


def _results(folder: Path) -> Any:
    return json.loads((folder / "results.json").read_text(encoding="utf-8"))


def _figures(row: Json) -> Json:
    """What the page tells of a row; the rest lies with the comparison that it comes from."""
    return {key: row[key] for key in (*METRICS.values(), "n")}


def _training(run: RunFolder) -> dict[str, Any]:
    """How a model was trained, and what its run measured on held-out questions of the sets that it was trained on."""
    found = {name: evaluation for name in ("before", "after") if (evaluation := run.evaluation(name))}
    return {
        **origin(run.meta()),
        "minutes": round(run.seconds_spent() / 60),
        "steps": len(run.metrics()),
        "finished": run.finished,
        "questions": found["before"]["n"],
        **{name: {key: evaluation[key] for key in _HELD_OUT} for name, evaluation in found.items()},
    }


def _rows(untrained: Json, models: Mapping[str, Json], name: str) -> dict[str, Json]:
    rows = {method: row for method, row in untrained["sets"][name].items() if method not in BOUNDS}
    rows |= {label: model["sets"][name]["r1-searcher"] for label, model in models.items()}
    if len({row["n"] for row in rows.values()}) > 1:
        asked = ", ".join(f"{method} {row['n']}" for method, row in rows.items())
        raise SystemExit(f"not all were asked as many questions of {name}: {asked}")
    return rows


def _paired(began: Path, rl: Path, name: str) -> dict[str, Difference]:
    """What RL gained on one set over what it began with, question by question."""
    found = compare_runs(*(read_run(folder / name / "r1-searcher") for folder in (began, rl)))
    return {key: found.metrics[key] for key in METRICS.values()}


def page(
    sets: Mapping[str, Mapping[str, Json]],
    config: Json,
    trained: Mapping[str, Json],
    gained: Mapping[str, Mapping[str, Difference]],
    *,
    remark: str,
    name: str,
) -> str:
    """The table of all sets, what RL gained on each, and how the models were trained."""
    env, model = config["env"], Path(config["model"]["path"]).name
    methods = dict.fromkeys(method for rows in sets.values() for method in rows)
    head = ["method", *(f"{each.removesuffix('-v0')} {metric}" for each in sets for metric in METRICS)]
    paired = [[each.removesuffix("-v0"), *_differences(found)] for each, found in gained.items()]
    parts = [
        f"# {model} on real questions",
        f"{config['evaluation']['questions']} questions of each set, {env['retriever']}, k = {env['top_k']}, "
        f"at most {env['max_searches']} searches, greedy.",
        *([remark] if remark else []),
        table(head, [[method, *_cells(method, sets)] for method in methods]),
        *gains(sets),
        f"RL minus {'untrained' if UNTRAINED in methods else 'imitation'}, question by question (95 % interval of a "
        "paired bootstrap; p of a permutation test, not corrected for how many there are):",
        table(["set", *METRICS], paired),
        "\n".join(f"* {kind}: {_told(run)}" for kind, run in trained.items()),
        f"![Rewards, scores and searches of the RL, step by step]({name}/training.png)",
    ]
    return "\n\n".join(parts) + "\n"


def _told(run: Json) -> str:
    measured = [name for name in ("before", "after") if name in run]
    figures = (
        f"{label} {' and '.join(f'{run[name][key]:.3f} {name}' for name in measured)}"
        for key, label in _HELD_OUT.items()
    )
    return (
        f"`{run['command']}`, {run['date']}, {run['minutes']} minutes on {run['machine']}, {run['steps']} steps"
        f"{'' if run['finished'] else ', then stopped'}; on {run['questions']} held-out questions of the sets it was "
        f"trained on: {', '.join(figures)}."
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
        without = {method: score for method, score in scores.items() if not method.startswith("RL ")}
        untrained = {method: score for method, score in without.items() if method != IMITATION}
        aim = f" where {AIM[name]:+d} % was the aim" if name in AIM else ""
        told = [f"ACC_R {reached:.3f}", f"{_over_best(reached, without, 'without RL')}{aim}"]
        if IMITATION in without:
            told += [_over_best(reached, untrained, "that is not trained")]
        began, what = (UNTRAINED, "model") if UNTRAINED in without else (IMITATION, "imitation")
        told += [f"{_gain(reached, without[began])} over the {what} that it began with"]
        yield f"{name.removesuffix('-v0')}: {', '.join(told)}."


def _over_best(reached: float, others: Mapping[str, float], which: str) -> str:
    best, score = max(others.items(), key=lambda other: other[1])
    return f"{_gain(reached, score)} over the best {which} ({best})"


def _gain(reached: float, other: float) -> str:
    return f"{100 * (reached / other - 1):+.0f} %" if other else f"{reached:+.3f}"


if __name__ == "__main__":
    main()

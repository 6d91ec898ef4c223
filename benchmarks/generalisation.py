r"""What trained agents do with questions unlike those they were trained on: of more hops, and over ten times the pages.

    search-env train --config fictional-wiki --seed 0 --out outputs/seed0
    search-env bench ablation difficulty --out outputs/ablation-difficulty
    python benchmarks/generalisation.py --write \
        --trained "on 1 to 4 hops" outputs/seed0 outputs/seed1 outputs/seed2 \
        --trained "on 1 and 2 hops" outputs/ablation-difficulty/without-difficult/seed*

Every run's model answers the test questions of FictionalWiki over its own pages; the same questions where as many other
worlds' pages lie between as make it ten times as large; and the questions of those other worlds, whose names have more
words than any it was trained on. The oracle, which follows the hops, shows that they can be answered there.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from search_agents.config import EvalConfig
from search_agents.engines.base import Engine, NoEngine
from search_agents.engines.transformers import TransformersEngine
from search_agents.evaluation.evaluate import HeldOut
from search_agents.evaluation.report import table
from search_agents.learning.run_folder import RunFolder

from search_env.datasets import Dataset, fictional_wiki
from search_env.datasets.fictional_wiki.scale import stream_parts

RESULTS = Path(__file__).parent / "results"
TIMES, QUESTIONS = 10, 400
Json = Mapping[str, Any]
Runs = Sequence[tuple[str, Sequence[Path]]]


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the page, and keep it if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--trained",
        nargs="+",
        action="append",
        required=True,
        metavar=("WHAT", "RUN"),
        help="how runs were trained, and their folders, one a seed",
    )
    parser.add_argument("--questions", type=int, default=QUESTIONS, help="of each encyclopaedia [%(default)s]")
    parser.add_argument("--write", action="store_true", help="keep the result in results/ as JSON and Markdown")
    arguments = parser.parse_args(argv)
    runs = [(what, [Path(folder) for folder in folders]) for what, *folders in arguments.trained]
    torch.set_num_threads(1)
    sets = encyclopaedias(arguments.questions)
    found = {
        "command": "python benchmarks/generalisation.py " + shlex.join(sys.argv[1:] if argv is None else argv),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "passages": {name: len(dataset.documents) for name, dataset in sets.items()},
        "rows": [row for name, dataset in sets.items() for row in rows_of(name, dataset, runs, arguments.questions)],
    }
    text = page(found)
    print(text)
    if arguments.write:
        (RESULTS / "generalisation.json").write_text(json.dumps(found, indent=1) + "\n")
        (RESULTS / "generalisation.md").write_text(text)


def encyclopaedias(questions: int) -> dict[str, Dataset]:
    """The test questions over their own pages, over ten times as many, and as many questions about the others."""
    own = fictional_wiki.load("test")
    parts = list(stream_parts((TIMES - 1) * len(own.documents), {"test": questions}, seed=1))
    asked = [question for part in parts for question in part.questions]
    pages = (*own.documents, *(document for part in parts for document in part.documents))
    other = tuple(question.to_question(f"other-{number:05d}") for number, question in enumerate(asked))
    return {
        "FictionalWiki": own,
        f"the same, {TIMES} times the pages": dataclasses.replace(own, documents=pages),
        "its other worlds, longer names": Dataset(name="other", split="test", questions=other, documents=pages),
    }


def rows_of(name: str, dataset: Dataset, runs: Runs, questions: int) -> list[dict[str, Any]]:
    """What the runs of each kind, and the oracle, reach on a set."""
    rows = []
    for what, folders in runs:
        measured = [measure(dataset, folder, "r1-searcher", questions) for folder in folders]
        rows.append({"set": name, "agent": f"trained {what}", "seeds": measured})
    rows.append({"set": name, "agent": "oracle", "seeds": [measure(dataset, runs[0][1][0], "oracle", questions)]})
    return rows


def measure(dataset: Dataset, folder: Path, method: str, questions: int) -> dict[str, Any]:
    """A run's model on a set, greedily, in the environment and with the budgets that it was trained with."""
    run = RunFolder.open(folder).config()
    shared = {key: getattr(run, key) for key in ("env", "model", "rollout", "evaluation", "run")}
    shared["evaluation"] = run.evaluation.model_copy(update={"questions": questions, "temperatures": (0.0,)})
    held_out = HeldOut(EvalConfig(**shared), data=dataset)
    engine: Engine = NoEngine()
    if method != "oracle":
        engine = TransformersEngine.from_pretrained(str(folder / "model"), dtype=run.model.dtype)
    found = held_out.measure(method, engine, temperature=0.0)
    by_hops: dict[int, list[int]] = {}
    for transcript in found.transcripts:
        by_hops.setdefault(transcript.question.hops or 0, []).append(len(transcript.queries))
    scores = found.scores
    return {
        "seed": run.run.seed,
        "f1": scores.f1,
        "em": scores.em,
        "interval": scores.intervals["f1"],
        "hops": {
            str(hops): {"n": len(each), "f1": scores.by_hops[str(hops)].f1, "searches": mean(each)}
            for hops, each in sorted(by_hops.items())
        },
    }


def page(found: Json) -> str:
    """The result as Markdown."""
    hops = list(found["rows"][0]["seeds"][0]["hops"])
    tables = []
    for what, key in (("F1", "f1"), ("Searches a question", "searches")):
        cells = [
            [
                row["set"],
                row["agent"],
                str(len(row["seeds"])),
                *([over([seed["f1"] for seed in row["seeds"]])] if key == "f1" else []),
                *(over([seed["hops"][each][key] for seed in row["seeds"]]) for each in hops),
            ]
            for row in found["rows"]
        ]
        counts = {each: found["rows"][0]["seeds"][0]["hops"][each]["n"] for each in hops}
        header = ["questions of", "agent", "seeds", *(["all"] if key == "f1" else [])]
        tables += [f"## {what}, by hops", table([*header, *(f"{each} (n = {counts[each]})" for each in hops)], cells)]
    pages = ", ".join(f"{name}: {number:,} pages" for name, number in found["passages"].items())
    return (
        "\n\n".join(
            [
                "# Beyond what was trained on",
                "Trained agents on held-out questions, decoded greedily; the mean over seeds, with lowest and highest. "
                f"{pages}. The other worlds' questions differ a little in their numbers by hops.",
                *tables,
                "\n".join(f"* {key}: {found[key]}" for key in ("command", "date", "machine")),
            ]
        )
        + "\n"
    )


def over(values: Sequence[float]) -> str:
    """Mean, and lowest and highest where there are several."""
    shown = f"{mean(values):.3f}"
    return shown if len(values) == 1 else f"{shown} ({min(values):.3f} to {max(values):.3f})"


if __name__ == "__main__":
    main()

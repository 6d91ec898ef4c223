"""Does two-stage RL make a model search better than prompting, retrieval or imitation do? What the results here say.

    python benchmarks/evidence.py --write

Reads nothing but what other commands have kept in benchmarks/results, and names them. A part that has not been run is
told as such. Gains are relative, against the best method without RL of the same model, questions, corpus, k and budget.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from search_agents.ablations.page import paragraph
from search_agents.evaluation.report import table

RESULTS = Path(__file__).parent / "results"
NOT_YET = "Not run yet."
Json = Mapping[str, Any]

_WITHOUT_RL = {
    "closed_book_before": "closed book, untrained",
    "rag_before": "single-retrieval RAG, untrained",
    "before": "search agent, untrained",
    "forced_query": "search agent, untrained, first query forced",
}
_METRICS = {"ACC_R": "cem", "F1": "f1", "EM": "em"}
_PAPER = {"HotpotQA": 48, "2WikiMultiHopQA": 22}
"""Relative gain in percent over the best earlier method that the paper's abstract claims."""


def main(argv: Sequence[str] | None = None) -> None:
    """Put the page together."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="keep it as results/evidence.md")
    arguments = parser.parse_args(argv)
    text = page(RESULTS)
    print(text)
    if arguments.write:
        (RESULTS / "evidence.md").write_text(text, encoding="utf-8")


def page(results: Path) -> str:
    """The page, from a folder of results."""
    parts = [
        "# Does it learn?",
        "What is known of the claim that two-stage RL makes a language model search better than prompting, retrieval "
        f"or imitation do. Put together by `python benchmarks/evidence.py --write`. {_aim()}",
        "## A tiny model on an encyclopaedia that nobody knows by heart",
        *_trained(results, "fictional-wiki"),
        "## Beyond what it was trained on",
        _page_of(results / "generalisation.md"),
        "## A real model on real questions",
        *_real(results),
        "## The paper's comparisons, with the tiny model",
        *_ablations(results),
        "## A sweep",
        *_sweep(results),
    ]
    return "\n\n".join(parts) + "\n"


def _aim() -> str:
    told = " and ".join(f"{percent} % on {name}" for name, percent in _PAPER.items())
    return f"The paper's own headline is a relative gain of {told} over the best method without RL."


def _trained(results: Path, name: str) -> Iterator[str]:
    """What the runs of a recipe reached, beside everything without RL."""
    files = sorted((results / name).glob("summary-seed*.json"))
    if not files:
        yield NOT_YET
        return
    summaries = [json.loads(file.read_text()) for file in files]
    without = {label: [summary[key] for summary in summaries] for key, label in _WITHOUT_RL.items()}
    imitated = results / f"{name}-sft.json"
    if imitated.is_file():
        without["imitation (SFT)"] = [run["scores"]["0"]["after"] for run in json.loads(imitated.read_text())["sft"]]
    after = [summary["after"] for summary in summaries]
    rows = [[label, str(len(found)), *map(_over, _columns(found))] for label, found in without.items()]
    rows += [["search agent after two stages of RL", str(len(after)), *map(_over, _columns(after))]]
    asked, temperature = summaries[0]["environment"], after[0]["temperature"]
    yield (
        f"{asked['questions']} held-out questions of {asked['id']}, {asked['documents']:,} passages, k = "
        f"{asked['top_k']}, at most {asked['max_searches']} searches, "
        f"{'greedy' if temperature == 0 else f'temperature {temperature:g}'}; mean over the seeds, with lowest and "
        f"highest ([figures and curves]({name}/README.md))."
    )
    yield table(["method", "seeds", *_METRICS], rows)
    yield " ".join(_gains(without, after))
    yield f"![Training of the seeds]({name}/training.png)"


def _columns(found: Sequence[Json]) -> list[list[float]]:
    return [[each[key] for each in found if key in each] for key in _METRICS.values()]


def _gains(without: Mapping[str, Sequence[Json]], after: Sequence[Json]) -> Iterator[str]:
    """The gain in every metric that all methods were measured by."""
    for label, key in _METRICS.items():
        if not all(key in each for found in without.values() for each in found):
            continue
        reached = mean(each[key] for each in after)
        others = {name: mean(each[key] for each in found) for name, found in without.items()}
        best = max(others, key=lambda name: others[name])
        if others[best]:
            gain = 100 * (reached / others[best] - 1)
            yield f"Gain in {label} over the best method without RL ({best}): {gain:+.0f} %."
        else:
            yield f"No method without RL has {label} above 0, and RL reaches {reached:.3f}."


def _real(results: Path) -> Iterator[str]:
    pages = sorted(results.glob("real-questions*.md"))
    for file in pages:
        yield f"##{file.read_text(encoding='utf-8').splitlines()[0]}"
        yield _page_of(file)
    if not pages:
        yield NOT_YET
    recipes = {file.parent.name for file in results.glob("*/summary-seed*.json")} - {"fictional-wiki"}
    for name in sorted(recipes):  # every other recipe is of real questions
        yield f"### {name}"
        yield from _trained(results, name)


def _ablations(results: Path) -> Iterator[str]:
    files = sorted((results / "ablations").glob("*/ablation.json"))
    for file in files:
        found = json.loads(file.read_text())
        yield f"### {found['ablation']['title']}"
        yield f"{paragraph(found)} ([tables and curves](ablations/{file.parent.name}/ablation.md))"
    if not files:
        yield NOT_YET


def _sweep(results: Path) -> Iterator[str]:
    folders = sorted(file.parent for file in results.glob("sweeps/*/sweep.json"))
    for folder in folders:
        yield f"### {folder.name}"
        yield _page_of(folder / "README.md")
        yield f"![Every trial](sweeps/{folder.name}/curves.png)"
        yield f"![What was swept](sweeps/{folder.name}/fields.png)"
    if not folders:
        yield NOT_YET


def _page_of(file: Path) -> str:
    """Another page without its title, its headings one level below ours."""
    if not file.is_file():
        return NOT_YET
    lines = file.read_text(encoding="utf-8").strip().splitlines()
    return "\n".join(f"#{line}" if line.startswith("#") else line for line in lines[1:]).strip()


def _over(values: Sequence[float]) -> str:
    if not values:
        return "-"
    low, high = min(values), max(values)
    shown = f"{mean(values):.3f}"
    return shown if low == high else f"{shown} ({low:.3f} to {high:.3f})"


if __name__ == "__main__":
    main()

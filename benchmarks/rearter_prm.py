"""Whether a process reward model that ReARTeR trains here tells right reasoning from wrong, on questions it never saw.

    python benchmarks/rearter_prm.py --model smollm2-135m --encoder all-MiniLM-L6-v2 --write

The model reasons about single-hop training questions of FictionalWiki, whose answers no model knows: a step helps if it
finds the document. Prefixes of its reasoning are labelled by rolling them out, and a small encoder learns the labels.
What is measured on prefixes of held-out questions is the AUC of the trained reward model, of the same one before its
training, and of the number of steps. Rows are kept as they come: the same command, given again, goes on. What is kept
with --write is put beside what was kept before: the same command draws other reasoning on another kind of processor.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from search_agents.engines.base import SamplingParams
from search_agents.engines.transformers import TransformersEngine
from search_agents.learning.run_folder import read_jsonl
from search_agents.methods import Setting
from search_agents.methods.rearter import ReARTeR
from search_agents.methods.rearter.annotate import AnnotationOptions
from search_agents.methods.rearter.train import FitOptions
from search_agents.methods.reward_model import RewardTraining

from search_env import SearchQAVectorEnv
from search_env.errors import ConfigError

RESULTS = Path(__file__).parent / "results"
_IN_THE_TABLE = ("training", "held_out", "trained", "untrained", "longest_first")


def main(argv: Sequence[str] | None = None) -> None:
    """Annotate, train, measure, and keep the figures if asked."""
    arguments = _parser().parse_args(argv)
    began, processor = time.monotonic(), time.process_time()
    env = SearchQAVectorEnv(arguments.batch, dataset="fictional-wiki", split="train", top_k=1, prompt="base")
    setting = Setting(
        engine=TransformersEngine.from_pretrained(arguments.model, dtype=arguments.dtype),
        env=env,
        sampling=SamplingParams(temperature=0.7, max_tokens=32),
        max_tokens=2048,
        chat=False,
    )
    options = FitOptions(
        encoder=arguments.encoder,
        annotation=AnnotationOptions(
            rollouts=arguments.rollouts, iterations=arguments.iterations, max_steps=arguments.steps
        ),
        training=RewardTraining(part=arguments.part, epochs=arguments.epochs),
    )
    single = [question for question in env.dataset.questions if question.hops == 1]
    try:
        figures = ReARTeR.fit(setting, single[: arguments.questions], arguments.out, options)
    except ConfigError as error:
        figures = {"not_trained": str(error), **yields(read_jsonl(arguments.out / "prefixes.jsonl"))}
    told = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "versions": ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers")),
        "model": Path(arguments.model).name,
        "encoder": Path(arguments.encoder).name,
        "data": "single-hop questions of fictional-wiki train, bm25, 1 document a search",
        "options": options.model_dump(mode="json", exclude={"encoder"}),
        "seconds_of_the_last_start": round(time.monotonic() - began),
        "processor_seconds_of_the_last_start": round(time.process_time() - processor),
    }
    kept = RESULTS / "rearter-prm.json"
    collections = json.loads(kept.read_text())["collections"] if kept.exists() else []
    collections.append({**told, **figures})
    page = markdown(collections)
    print(page)
    if arguments.write:
        kept.write_text(json.dumps({"collections": collections}, indent=2) + "\n")
        kept.with_suffix(".md").write_text(page)


def yields(records: Sequence[dict[str, Any]]) -> dict[str, int]:
    """What became of the questions, and how many prefixes they gave."""
    worth = [record.get("mc") for record in records]
    return {
        "questions": len(records),
        "never_right": worth.count(0.0),
        "always_right": worth.count(1.0),
        "outgrew_the_budget": worth.count(None),
        "prefixes": sum(len(record.get("prefixes", ())) for record in records),
    }


def markdown(collections: Sequence[dict[str, Any]]) -> str:
    """The page: a row for each collection of prefixes, and how each was made."""
    lines = [
        "# ReARTeR: process reward models trained here",
        "",
        "The AUC says how well a held-out prefix that is right (more than half of its rollouts end right) is told from "
        "one that is not; 0.5 is chance. Each row is a collection of prefixes and a model trained on it.",
        "",
        "| prefixes to train on | of them right | held out | right | AUC trained | untrained | number of steps |",
        "| ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    trained = [each for each in collections if "not_trained" not in each]
    best = 0
    for each in trained:
        aucs = [each[name]["auc"] for name in ("trained", "untrained", "longest_first")]
        best += aucs[0] == max(aucs)
        counts = [each[part][key] for part in ("training", "held_out") for key in ("prefixes", "right")]
        lines.append(f"| {' | '.join([*map(str, counts), *(f'{auc:.3f}' for auc in aucs)])} |")
    lines += ["", f"The trained model ranks held-out prefixes best in {best} of {len(trained)} collections."]
    for number, each in enumerate(collections, start=1):
        facts = {key: value for key, value in each.items() if key not in _IN_THE_TABLE}
        lines += ["", f"## Collection {number}", "", *(f"* {key}: {value}" for key, value in facts.items())]
    return "\n".join(lines) + "\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder or hub id of the model that reasons")
    parser.add_argument("--dtype", default="bfloat16", help="of its weights (default: bfloat16)")
    parser.add_argument("--encoder", required=True, help="folder or hub id of what becomes the reward model")
    parser.add_argument("--questions", type=int, default=40, help="training questions, the first ones (default: 40)")
    parser.add_argument("--batch", type=int, default=8, help="questions in play at once (default: 8)")
    parser.add_argument("--rollouts", type=int, default=3, help="of one prefix (default: 3; paper: 5)")
    parser.add_argument("--steps", type=int, default=2, help="most steps of a rollout (default: 2; paper: 5)")
    parser.add_argument("--iterations", type=int, default=3, help="rollouts searched (default: 3; paper: 20)")
    parser.add_argument("--part", default="all", help="what is trained: all or head (default: all)")
    parser.add_argument("--epochs", type=int, default=4, help="passes over the prefixes (default: 4)")
    parser.add_argument("--out", type=Path, default=Path("outputs/rearter-prm"), help="working folder; goes on there")
    parser.add_argument("--write", action="store_true", help=f"keep the figures in {RESULTS.name}/ as JSON, Markdown")
    return parser


if __name__ == "__main__":
    main()

"""Episodes in turns against each in its own time (`model.continuous`), for searches that take no, some or much time.

    python benchmarks/continuous.py --model outputs/RUN/model --write

Both play the same episodes of FictionalWiki with the same engine, round by round; what they wrote is compared, too. The
model should search, as one trained here does. On a CPU a decoding step costs about as much a row whatever the number
of rows, so full batches gain little, and rows of unlike lengths are computed as the longest; what can be gained is the
time of the searches.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from search_agents.engines.base import SamplingParams
from search_agents.engines.transformers import TransformersEngine
from search_agents.learning.provenance import describe_origin
from search_agents.rollout import Episode, Task, play

from search_env import SearchQAVectorEnv
from search_env.datasets import load
from search_env.retrieval import Retriever, get_retriever

RESULTS = Path(__file__).parent / "results"
GROUP = 8
"""Episodes of a question."""


class Slow:
    """A retriever that takes its time.

    Args:
        retriever: Is asked afterwards.
        seconds: How long every batch of queries waits.
    """

    def __init__(self, retriever: Retriever, seconds: float) -> None:
        self._retriever, self._seconds = retriever, seconds
        self.fingerprint = retriever.fingerprint

    def search(self, queries: Sequence[str], top_k: int) -> Any:
        """Wait, then search."""
        time.sleep(self._seconds)
        return self._retriever.search(queries, top_k)


def main() -> None:
    """Measure, print the page, keep it if asked."""
    arguments = _arguments()
    torch.set_num_threads(1)
    engines = {
        name: TransformersEngine.from_pretrained(
            arguments.model, dtype=arguments.dtype, continuous=name == "continuous"
        )
        for name in ("turns", "continuous")
    }
    dataset = load("fictional-wiki", split="train")
    retriever = get_retriever("bm25", dataset.documents)
    tasks = [Task(number // GROUP, number // GROUP, seed=number) for number in range(arguments.episodes)]
    rows = []
    for milliseconds in arguments.milliseconds:
        env = SearchQAVectorEnv(
            arguments.num_envs, dataset=dataset, retriever=Slow(retriever, milliseconds / 1000), top_k=1, prompt="bare"
        )
        seconds: dict[str, list[float]] = {name: [] for name in engines}
        for _ in range(arguments.rounds):
            written = {}
            for name, engine in engines.items():
                began = time.perf_counter()
                written[name] = _play(engine, env, tasks)
                seconds[name].append(time.perf_counter() - began)
        ratios = [turns / own for turns, own in zip(seconds["turns"], seconds["continuous"], strict=True)]
        rows.append(
            {
                "search_ms": milliseconds,
                "seconds": {name: round(statistics.median(each), 2) for name, each in seconds.items()},
                "ratio": round(statistics.median(ratios), 2),
                "spread": [round(min(ratios), 2), round(max(ratios), 2)],
                "tokens": sum(int(episode.action_mask.sum()) for episode in written["turns"]),
                "searches": sum(len(episode.transcript.queries) for episode in written["turns"]),
                "episodes_that_differ": sum(
                    one.token_ids.tolist() != other.token_ids.tolist()
                    for one, other in zip(*written.values(), strict=True)
                ),
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    told = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": f"one thread of {describe_origin()['machine']['processor']}, beside other work",
        "torch": torch.__version__,
        "episodes": arguments.episodes,
        "num_envs": arguments.num_envs,
        "dtype": arguments.dtype,
        "rounds": arguments.rounds,
    }
    page = markdown(rows, told)
    print(page)
    if arguments.write:
        (RESULTS / "continuous.json").write_text(json.dumps({**told, "rows": rows}, indent=1) + "\n")
        (RESULTS / "continuous.md").write_text(page)


def _play(engine: TransformersEngine, env: SearchQAVectorEnv, tasks: Sequence[Task]) -> list[Episode]:
    return play(engine, env, tasks, sampling=SamplingParams(max_tokens=128), max_tokens=768, chat=False)


def markdown(rows: Sequence[dict[str, Any]], told: dict[str, Any]) -> str:
    """The page."""
    lines = [
        "# Episodes in turns, and each in its own time",
        "",
        "`python benchmarks/continuous.py`: a model trained on FictionalWiki plays the same episodes both ways. Above "
        "1 each in its own time is faster.",
        "",
        "| a search takes | in turns, s | each in its own time, s | ratio | spread | tokens | searches | episodes that "
        "differ |",
        "|---:|---:|---:|---:|---:|---:|---:|---:|",
        *(
            f"| {row['search_ms']} ms | {row['seconds']['turns']} | {row['seconds']['continuous']} | {row['ratio']} | "
            f"{row['spread'][0]} to {row['spread'][1]} | {row['tokens']} | {row['searches']} | "
            f"{row['episodes_that_differ']} |"
            for row in rows
        ),
        "",
        *(f"* {name}: {value}" for name, value in told.items()),
    ]
    return "\n".join(lines) + "\n"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of a model that searches")
    parser.add_argument("--dtype", default="float32", help="of its weights (default: float32)")
    parser.add_argument("--episodes", type=int, default=256, help=f"{GROUP} a question (default: 256)")
    parser.add_argument("--num-envs", type=int, default=64, help="in play at a time (default: 64)")
    parser.add_argument("--milliseconds", type=int, nargs="+", default=[0, 50, 200], help="of a search")
    parser.add_argument("--rounds", type=int, default=3, help="(default: 3)")
    parser.add_argument("--write", action="store_true", help=f"keep the figures in {RESULTS.name}/")
    return parser.parse_args()


if __name__ == "__main__":
    main()

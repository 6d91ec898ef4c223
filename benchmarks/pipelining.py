"""What sampling ahead saves: an iteration with `max_staleness` 1 beside one with 0, a remote runner and a learner each.

Two algorithms of one configuration, each with a runner in a process of its own and the learner in this one, a thread
for each. They take turns in blocks of iterations, of which the first, that fills the pipeline, is not counted; the
batch that is in flight at the end of a block is waited for and dropped. The learning rate is 0, so both sample the same
episodes and train on the same, which is checked; all the work of an update is done.

    python benchmarks/pipelining.py
    python benchmarks/pipelining.py --model FOLDER --prompts 8 --rounds 5 --write

The most that it can save is the shorter of sampling and learning: `bound` is their sum by the longer, of the runs that
do not sample ahead. It needs a core for each.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch

import ray
import torch
from search_agents.learning import ReinforcePP, ReinforcePPConfig
from search_agents.models import find_model

from benchmarks.environment import about

RESULT = Path(__file__).parent / "results" / "pipelining.json"
WAYS = {"pipelined": 1, "in turns": 0}
_TIMES = ("iteration", "wait", "learn")


def main() -> None:
    """Measure both in turn, print the figures, and keep them if asked."""
    arguments = _arguments()
    torch.set_num_threads(1)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    algorithms = {name: _config(arguments, staleness).build_algo() for name, staleness in WAYS.items()}
    taken: dict[str, list[list[dict[str, float]]]] = {name: [] for name in WAYS}
    sampled = 0
    for number in range(arguments.rounds):
        tokens = {}
        for name in list(WAYS) if number % 2 else list(WAYS)[::-1]:
            found, tokens[name] = _block(algorithms[name], arguments.iterations)
            taken[name].append(found)
        assert len(set(tokens.values())) == 1, f"both must sample the same episodes, not {tokens}"
        sampled = sum(map(len, tokens["pipelined"]))
    figures = {
        **about(["pipelining.py", f"--prompts {arguments.prompts}", f"--rounds {arguments.rounds}"]),
        "model": Path(arguments.model).name,
        **summary(taken),
        "tokens_per_iteration": round(sampled / (arguments.iterations + 1)),
    }
    print(json.dumps(figures, indent=1))
    if arguments.write:
        RESULT.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    for algo in algorithms.values():
        algo.stop()
    ray.shutdown()


def summary(taken: dict[str, list[list[dict[str, float]]]]) -> dict[str, Any]:
    """How many times as fast an iteration is that samples ahead, and where both spend their time.

    Args:
        taken: By way, block and iteration: its seconds, those of its waiting for episodes and of its learning, and the
            staleness of its batch. Blocks at the same place ran one after the other.
    """
    blocks = {
        name: [{key: statistics.median(each[key] for each in block) for key in _TIMES} for block in found]
        for name, found in taken.items()
    }
    pairs = list(zip(blocks["in turns"], blocks["pipelined"], strict=True))
    ratios = [turns["iteration"] / ahead["iteration"] for turns, ahead in pairs]
    bounds = [(each["wait"] + each["learn"]) / max(each["wait"], each["learn"]) for each in blocks["in turns"]]
    return {
        "pipelining_speedup": {
            "value": round(statistics.median(ratios), 3),
            "spread": [round(min(ratios), 3), round(max(ratios), 3)],
            "raw": {
                name: {key: round(statistics.median(block[key] for block in found), 3) for key in _TIMES}
                for name, found in blocks.items()
            },
            "unit": "seconds of wall time an iteration in turns by those of one that samples ahead",
        },
        "bound": round(statistics.median(bounds), 3),
        "staleness": sorted({each["staleness"] for block in taken["pipelined"] for each in block}),
    }


def _block(algo: ReinforcePP, iterations: int) -> tuple[list[dict[str, float]], tuple[tuple[int, ...], ...]]:
    """Seconds of each iteration but the first, and the tokens of all episodes; begins at the first step every time."""
    algo.set_progress({"steps_done": 0, "env_steps": 0, "schedule": {"stage": "train", "steps": 0, "streak": 0}})
    found, tokens = [], []
    for number in range(iterations + 1):
        begun = time.perf_counter()
        result = algo.train()
        seconds = time.perf_counter() - begun
        timers, learner = result["timers"], result["learners"]["default_policy"]
        if number:
            times = {"iteration": seconds, "wait": float(timers["sample"]), "learn": float(timers["learn"])}
            found.append({**times, "staleness": float(learner.get("staleness", 0))})
        tokens.append(tuple(int(token) for episode in algo.episodes for token in episode.token_ids))
    algo.set_progress(algo.get_progress())  # waits for the batch in flight, which must not run beside the other's block
    return found, tuple(tokens)


def _config(arguments: argparse.Namespace, staleness: int) -> ReinforcePPConfig:
    config = ReinforcePPConfig().environment(
        "SearchQA-FictionalWiki-v0", env_config={"prompt": "bare", "split": "train", "reward": "stage2"}
    )
    made: ReinforcePPConfig = (
        config.env_runners(num_env_runners=1)
        .training(
            model=find_model(arguments.model),
            dtype="float32",
            autocast=False,
            packing=False,
            advantage="reinforce++-baseline",
            lr=0.0,
            prompts_per_batch=arguments.prompts,
            group_size=4,
            minibatch_size=2 * arguments.prompts,
            micro_batch_tokens=4096,
            max_segment_tokens=96,
            max_episode_tokens=768,
            max_staleness=staleness,
            torch_threads=1,
        )
        .debugging(seed=0)
    )
    return made


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny", help="model folder [%(default)s]")
    parser.add_argument("--prompts", type=int, default=16, help="questions of an iteration, 4 episodes each")
    parser.add_argument("--iterations", type=int, default=4, help="counted iterations of a block [%(default)s]")
    parser.add_argument("--rounds", type=int, default=3, help="blocks of each [%(default)s]")
    parser.add_argument("--write", action="store_true", help=f"keep the figures in {RESULT.name}")
    return parser.parse_args()


if __name__ == "__main__":
    main()

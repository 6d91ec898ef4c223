"""What RLlib costs: an iteration of `algo.train()` beside the same work in a plain loop.

Both sample the same episodes with the same engine, compute the same advantages and take the same optimizer steps; the
loop does it with PyTorch alone: no Algorithm, no Learner, no metrics logger. That both do equal work is checked: the
same tokens are sampled, and the weights are the same afterwards. Iterations of the two alternate in one process, each
beginning with the same weights.

    python benchmarks/rllib.py
    python benchmarks/rllib.py --model FOLDER --prompts 8 --rounds 5 --write
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from search_agents.engines.base import SamplingParams
from search_agents.engines.transformers import TransformersEngine
from search_agents.learning import ReinforcePPConfig
from search_agents.learning.learner import ADAM_BETAS, LENGTHS, MINIBATCH, NUM_TOKENS, WEIGHT, micro_batches
from search_agents.learning.learner_group import build_batches
from search_agents.learning.losses import policy_loss
from search_agents.learning.preparation import prepare_rows
from search_agents.learning.prompts import tasks_of_step
from search_agents.learning.rl_module import ACTION_MASK, ENTROPIES, INPUT_IDS, LOGPROBS
from search_agents.models import find_model
from search_agents.rollout.asynchronous import play

from benchmarks.environment import about

RESULT = Path(__file__).parent / "results" / "rllib.json"
_PADDED = (INPUT_IDS, ACTION_MASK, Columns.ACTION_LOGP, Columns.ADVANTAGES)


def main() -> None:
    """Measure both in turn, print the figures, and keep them if asked."""
    arguments = _arguments()
    torch.set_num_threads(1)
    algo = _config(arguments).build_algo()
    module = algo.learner_group._learner.module[DEFAULT_MODULE_ID]
    initial = copy.deepcopy(module.model.state_dict())
    taken: dict[str, list[tuple[float, float]]] = {"rllib": [], "plain loop": []}
    for number in range(arguments.rounds + 1):  # the first round warms up
        afterwards, tokens = [], []
        ways: list[tuple[str, Callable[[], int]]] = [
            ("rllib", partial(_rllib, algo)),
            ("plain loop", partial(_plain, algo, module)),
        ]
        for name, act in ways if number % 2 else ways[::-1]:
            module.model.load_state_dict(initial)
            for optimizer in algo.learner_group._learner._named_optimizers.values():
                optimizer.state.clear()
            wall, cpu = time.perf_counter(), time.process_time()
            tokens.append(act())
            if number:
                taken[name].append((time.perf_counter() - wall, time.process_time() - cpu))
            afterwards.append([parameter.detach().clone() for parameter in module.model.parameters()])
        assert tokens[0] == tokens[1], f"both must sample the same tokens, not {tokens}"
        for one, other in zip(*afterwards, strict=True):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
    figures = {
        **about(["rllib.py", f"--prompts {arguments.prompts}", f"--rounds {arguments.rounds}"]),
        **summary(taken),
        "tokens_per_iteration": tokens[0],
    }
    print(json.dumps(figures, indent=1))
    if arguments.write:
        RESULT.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def summary(taken: dict[str, list[tuple[float, float]]]) -> dict[str, Any]:
    """Seconds of processor time an iteration, and how much more RLlib's takes.

    Args:
        taken: Wall and processor seconds of each iteration, by who took it; those at the same place ran side by side.
    """
    cpu = {name: [each[1] for each in found] for name, found in taken.items()}
    ratios = [ours / plain for ours, plain in zip(cpu["rllib"], cpu["plain loop"], strict=True)]
    return {
        "rllib_overhead": {
            "value": round(statistics.median(ratios) - 1, 4),
            "spread": [round(min(ratios) - 1, 4), round(max(ratios) - 1, 4)],
            "raw": {name: round(statistics.median(found), 4) for name, found in cpu.items()},
            "unit": "share of an iteration, by processor time",
        },
        "wall_seconds": {name: [round(each[0], 3) for each in found] for name, found in taken.items()},
    }


def _config(arguments: argparse.Namespace) -> ReinforcePPConfig:
    config = ReinforcePPConfig().environment(
        "SearchQA-FictionalWiki-v0", env_config={"prompt": "bare", "split": "train", "reward": "stage2"}
    )
    made: ReinforcePPConfig = config.training(
        model=find_model(arguments.model),
        dtype="float32",
        autocast=False,
        packing=False,
        advantage="reinforce++-baseline",
        lr=1e-4,
        prompts_per_batch=arguments.prompts,
        group_size=4,
        minibatch_size=2 * arguments.prompts,
        micro_batch_tokens=4096,
        max_segment_tokens=96,
        max_episode_tokens=768,
    ).debugging(seed=0)
    return made


def _rllib(algo: Any) -> int:
    # The same questions every time, as the loop has them.
    algo.set_progress({"steps_done": 0, "env_steps": 0, "schedule": algo.get_progress()["schedule"]})
    algo.train()
    return sum(int(episode.action_mask.sum()) for episode in algo.episodes)


def _plain(algo: Any, module: Any) -> int:
    config, env = algo.config, algo.env_runner.env
    engine = TransformersEngine(module.model, module.tokenizer)
    tasks = tasks_of_step(
        0,
        num_questions=len(env.dataset.questions),
        prompts_per_batch=config.prompts_per_batch,
        group_size=config.group_size,
        seed=config.seed,
        attempt=0,
    )
    sampling = SamplingParams(temperature=config.temperature, max_tokens=config.max_segment_tokens)
    episodes = play(engine, env, tasks, sampling=sampling, max_tokens=config.max_episode_tokens, chat=False)
    rows = prepare_rows(episodes, config, None, lambda *_: None)  # type: ignore[arg-type]  # nothing is asked of them
    order = np.random.default_rng([config.seed, 0, 1]).permutation(len(rows))
    (batch,) = build_batches([rows[index] for index in order], minibatch_size=config.minibatch_size, num_shares=1)
    columns = {name: torch.from_numpy(np.asarray(values)) for name, values in batch[DEFAULT_MODULE_ID].items()}
    optimizer = torch.optim.AdamW(module.model.parameters(), lr=config.lr, betas=ADAM_BETAS, weight_decay=0, fused=True)
    for minibatch in columns[MINIBATCH].unique():
        members = torch.nonzero(columns[MINIBATCH] == minibatch)[:, 0]
        for part in micro_batches(columns[LENGTHS][members], config.micro_batch_tokens, padded=True):
            _backward(module, columns, members[part], config)
        torch.nn.utils.clip_grad_norm_(module.model.parameters(), config.grad_clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return sum(int(episode.action_mask.sum()) for episode in episodes)


def _backward(module: Any, columns: dict[str, torch.Tensor], rows: torch.Tensor, config: Any) -> None:
    longest = int(columns[LENGTHS][rows].max())
    micro = {name: each[rows][:, :longest] if name in _PADDED else each[rows] for name, each in columns.items()}
    output = module(micro)
    predicted = micro[ACTION_MASK][:, 1:]
    counts = predicted.sum(dim=1)
    part = policy_loss(
        output[LOGPROBS],
        micro[Columns.ACTION_LOGP][:, 1:][predicted],
        micro[Columns.ADVANTAGES][:, 1:][predicted],
        clip=config.clip,
        clip_high=None,
        counts=counts,
        weights=micro[WEIGHT].repeat_interleave(counts),
        num_tokens=micro[NUM_TOKENS][0],
    )
    assert output[ENTROPIES].requires_grad is False
    part.loss.backward()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny", help="model folder [%(default)s]")
    parser.add_argument("--prompts", type=int, default=16, help="questions of an iteration, 4 episodes each")
    parser.add_argument("--rounds", type=int, default=6, help="iterations of each [%(default)s]")
    parser.add_argument("--write", action="store_true", help=f"keep the figures in {RESULT.name}")
    return parser.parse_args()


if __name__ == "__main__":
    main()

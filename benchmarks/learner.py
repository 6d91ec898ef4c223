"""How fast the learner trains on ragged episodes and how much memory it takes, against other ways to do the same.

Contenders, on the same model and rows (200 to 2000 tokens, a quarter of them sampled), full fine-tuning:

* ``ours``: the learner of `search_agents.learning`, as it comes,
* ``ours-lean``: the same with gradient checkpointing and one row in a forward pass,
* ``padded``: a plain PyTorch loop over rows padded to the longest, with the logits of every position,
* ``trl``, ``trl-lean``: the loss of TRL's `GRPOTrainer`, row by row, without and with gradient checkpointing: its
  fastest and its leanest setting on a CPU. They run where ``--trl-python`` has TRL.

Each runs in a process of its own: one short step to warm up and to allocate the optimizer, then one that is measured.
Memory is the peak of resident memory during that step minus what was resident before it. That all do the same work is
checked: tokens, and in float32 the loss and the norm of the gradient.

    python benchmarks/learner.py --model FOLDER
    python benchmarks/learner.py --model FOLDER --trl-python VENV/bin/python --write     (on a machine that is quiet)
"""

from __future__ import annotations

import argparse
import ctypes
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

RESULT = Path(__file__).parent / "results" / "learner.json"
OURS, PEERS = ("ours", "ours-lean"), ("padded", "trl", "trl-lean")
PROMPT, WARM_UP = 40, (60, 90)


def main() -> None:
    """Measure every contender in both formats and print the figures and their ratios as JSON."""
    arguments = _arguments()
    if arguments.contender:
        print(json.dumps(_measure(arguments)))
        return
    peers = [name for name in PEERS if arguments.trl_python or not name.startswith("trl")]
    result: dict[str, Any] = {
        "machine": f"{platform.machine()}, {arguments.threads} thread(s) of torch {torch.__version__}",
        "model": Path(arguments.model).name,
        "rows": arguments.rows,
        "rounds": arguments.rounds,
    }
    for number_format in arguments.formats:
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in (*OURS, *peers)}
        for _ in range(arguments.rounds):
            for name, found in runs.items():
                found.append(_in_own_process(name, number_format, arguments))
                print(name, number_format, json.dumps(found[-1]), file=sys.stderr, flush=True)
        if number_format == "float32":
            _require_equal_work(runs)
        result[number_format] = _summary(runs)
    print(json.dumps(result, indent=2))
    if arguments.write:
        RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def _in_own_process(name: str, number_format: str, arguments: argparse.Namespace) -> dict[str, float]:
    python = arguments.trl_python if name.startswith("trl") else sys.executable
    settings = ["--model", arguments.model, "--rows", arguments.rows, "--threads", arguments.threads]
    command = [python, __file__, "--contender", name, "--formats", number_format, *settings]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-3000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _require_equal_work(runs: dict[str, list[dict[str, float]]]) -> None:
    first = runs["ours"][0]
    for name, found in runs.items():
        assert found[0]["tokens"] == first["tokens"], name
        assert abs(found[0]["loss"] - first["loss"]) < 1e-4, (name, found[0], first)
        assert abs(found[0]["grad_norm"] / first["grad_norm"] - 1) < 1e-2, (name, found[0], first)


def _summary(runs: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Figures of each contender, and of ours against each peer: speed as ours / theirs, memory as ours / theirs."""
    speeds = {name: [run["tokens"] / run["seconds"] for run in found] for name, found in runs.items()}
    middle = {name: statistics.median(values) for name, values in speeds.items()}
    cpu = {name: statistics.median(run["cpu_seconds"] for run in found) for name, found in runs.items()}
    memory = {name: statistics.median(run["peak_mib"] for run in found) for name, found in runs.items()}
    pairs = [(ours, peer) for ours in OURS for peer in runs if peer in PEERS]
    return {
        "tokens_per_second": {
            name: {"value": round(middle[name], 1), "spread": [round(min(v), 1), round(max(v), 1)]}
            for name, v in speeds.items()
        },
        "peak_mib": {name: round(value) for name, value in memory.items()},
        "peak_mib_rounds": {name: [round(run["peak_mib"]) for run in found] for name, found in runs.items()},
        "speed_ratio": {f"{a}/{b}": round(middle[a] / middle[b], 2) for a, b in pairs},
        "cpu_speed_ratio": {f"{a}/{b}": round(cpu[b] / cpu[a], 2) for a, b in pairs},  # where the machine is not quiet
        "memory_ratio": {f"{a}/{b}": round(memory[a] / memory[b], 2) for a, b in pairs},
    }


def _measure(arguments: argparse.Namespace) -> dict[str, float]:
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    (number_format,) = arguments.formats
    make = {"ours": our_learner, "padded": _padded, "trl": _trl}[arguments.contender.partition("-")[0]]
    prepare = make(arguments.model, number_format == "bfloat16", arguments.contender.endswith("lean"))
    prepare(ragged_rows(WARM_UP))()
    lengths = np.linspace(200, 2000, arguments.rows).astype(int).tolist()
    work = prepare(ragged_rows(lengths))
    before = _resident("VmRSS", reset=True)
    begun, cpu = time.perf_counter(), time.process_time()
    loss, grad_norm = work()
    seconds, cpu = time.perf_counter() - begun, time.process_time() - cpu
    return {
        "tokens": sum(lengths),
        "seconds": seconds,
        "cpu_seconds": cpu,
        "peak_mib": (_resident("VmHWM") - before) / 1024,
        "loss": loss,
        "grad_norm": grad_norm,
    }


def ragged_rows(lengths: Any) -> list[dict[str, torch.Tensor]]:
    """Episodes of random tokens: a prompt, then segments of 40 sampled tokens after each 120 of documents."""
    generator = torch.Generator().manual_seed(1)
    rows = []
    for length in lengths:
        places = torch.arange(length)
        mask = (places >= PROMPT) & ((places - PROMPT) % 160 < 40)
        mask[-1] = True
        ids = torch.randint(5, 40_000, (length,), generator=generator)
        rows.append({"ids": ids, "mask": mask, "advantages": torch.randn(length, generator=generator) * mask})
    return rows


def _resident(field: str, *, reset: bool = False) -> int:
    """Resident memory now (VmRSS) or at its peak since the last reset (VmHWM), in KiB."""
    if reset:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


MICRO_BATCH_TOKENS = 2048
Work = Callable[[], tuple[float, float]]
Prepare = Callable[[list[dict[str, torch.Tensor]]], Work]


def our_learner(model: str, bfloat16: bool, lean: bool) -> Prepare:
    """A step of our learner over given rows; it returns the loss and the norm of the gradient."""
    from ray.rllib.core import DEFAULT_MODULE_ID
    from search_agents.learning import ReinforcePPConfig
    from search_agents.learning.learner_group import Row, build_batches

    config = ReinforcePPConfig().environment("SearchQA-FictionalWiki-v0")
    settings = {"gradient_checkpointing": lean, "micro_batch_tokens": 1 if lean else MICRO_BATCH_TOKENS}
    learner = config.training(
        model=model, dtype="float32", autocast=bfloat16, lr=1e-9, grad_clip=1e9, **settings
    ).build_learner()

    def prepare(rows: list[dict[str, torch.Tensor]]) -> Work:
        given = [{name: column.numpy() for name, column in row.items()} for row in rows]
        episodes = [
            Row(
                input_ids=row["ids"],
                action_mask=row["mask"],
                advantages=row["advantages"],
                logprobs=np.zeros(len(row["ids"]), dtype=np.float32),
            )
            for row in given
        ]

        def batch() -> Any:
            return build_batches(episodes, minibatch_size=len(rows), num_shares=1)[0]

        # On policy, as the others are: their old log-probs are those of the moment.
        old = learner.compute_logprobs(batch()[DEFAULT_MODULE_ID], reference=False)
        for episode, logprobs in zip(episodes, old, strict=True):
            episode.logprobs[episode.action_mask] = logprobs
        ready = batch()

        def work() -> tuple[float, float]:
            found = learner.update(batch=ready)[DEFAULT_MODULE_ID]
            return float(found["loss"].peek()), float(found["grad_norm"].peek())

        return work

    return prepare


def _padded(model: str, bfloat16: bool, lean: bool) -> Prepare:
    from transformers import AutoModelForCausalLM

    net = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-9, fused=True)

    def step(rows: list[dict[str, torch.Tensor]]) -> tuple[float, float]:
        pad = torch.nn.utils.rnn.pad_sequence
        ids, mask, advantages = (pad([row[n] for row in rows], batch_first=True) for n in ("ids", "mask", "advantages"))
        attends = pad([torch.ones_like(row["ids"]) for row in rows], batch_first=True)
        total, loss_sum = mask.sum(), 0.0
        for row in range(len(rows)):
            part = slice(row, row + 1)
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                logits = net(input_ids=ids[part], attention_mask=attends[part], use_cache=False).logits
            logs = logits[:, :-1].float().log_softmax(-1).gather(-1, ids[part, 1:, None])[..., 0]
            ratio = (logs - logs.detach()).exp()
            loss = -(ratio * advantages[part, 1:] * mask[part, 1:]).sum() / total
            loss.backward()
            loss_sum += loss.item()
        return loss_sum, _take_step(net, optimizer)

    return lambda rows: partial(step, rows)


def _trl(model: str, bfloat16: bool, lean: bool) -> Prepare:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    config = GRPOConfig(
        output_dir="/tmp",
        use_cpu=True,
        bf16=bfloat16,
        beta=0.0,
        loss_type="dapo",
        per_device_train_batch_size=2,
        num_generations=2,
        gradient_checkpointing=False,
        report_to=[],
        save_strategy="no",
        model_init_kwargs={"dtype": torch.float32},
    )
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=config,
        train_dataset=Dataset.from_list([{"prompt": "x"}] * 4),
    )
    net = trainer.model
    net.train()
    if lean:  # which the trainer itself does as late as in train()
        net.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    trainer.current_gradient_accumulation_steps = 1
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-9, fused=True)

    def step(rows: list[dict[str, torch.Tensor]]) -> tuple[float, float]:
        pad = torch.nn.utils.rnn.pad_sequence
        columns = {
            "prompt_ids": torch.stack([row["ids"][:PROMPT] for row in rows]),
            "completion_ids": pad([row["ids"][PROMPT:] for row in rows], batch_first=True),
            "completion_mask": pad([torch.ones_like(row["ids"][PROMPT:]) for row in rows], batch_first=True),
            "tool_mask": pad([row["mask"][PROMPT:].long() for row in rows], batch_first=True),
            "advantages": pad([row["advantages"][PROMPT:] for row in rows], batch_first=True),
        }
        columns["prompt_mask"] = torch.ones_like(columns["prompt_ids"])
        total, loss_sum = columns["tool_mask"].sum(), 0.0
        for row in range(len(rows)):
            inputs = {name: column[row : row + 1] for name, column in columns.items()}
            with trainer.compute_loss_context_manager():
                loss = trainer._compute_loss(net, {**inputs, "num_items_in_batch": total})
            loss.backward()
            loss_sum += loss.item()
        return loss_sum, _take_step(net, optimizer)

    return lambda rows: partial(step, rows)


def _take_step(net: Any, optimizer: torch.optim.Optimizer) -> float:
    norm = torch.nn.utils.clip_grad_norm_(net.parameters(), 1e9)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm.item()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of a causal language model")
    parser.add_argument("--rows", type=int, default=8, help="episodes of a step [%(default)s]")
    parser.add_argument("--rounds", type=int, default=3, help="times that every contender runs [%(default)s]")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch [%(default)s]")
    parser.add_argument("--formats", nargs="+", default=["float32", "bfloat16"], help="%(default)s")
    parser.add_argument("--trl-python", help="interpreter of an environment with TRL")
    parser.add_argument("--write", action="store_true", help=f"keep the figures in {RESULT.name}")
    parser.add_argument("--contender", choices=(*OURS, *PEERS), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()

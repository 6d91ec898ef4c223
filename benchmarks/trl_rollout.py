"""Search episodes by the generation of TRL's `GRPOTrainer`, for `vllm_rollout.py --trl-python`, which starts it.

The trainer's own turn (`_generate_single_turn`) is given the token ids of a batch of prompts, then those with what was
sampled and the documents behind it, as its loop over tool calls does; what that loop spends on parsing calls and on
messages is left out, in TRL's favour. Imports nothing of ours; it runs where TRL is installed.

    TRL_VENV/bin/python benchmarks/trl_rollout.py SETTINGS.json

Every line of standard input holds the prompts and documents of a round; it is answered with [tokens, wall seconds, CPU
seconds] on a line of standard output.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer


def main() -> None:
    """Play the rounds that are asked for."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    settings = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(1)
    size = settings["segment_tokens"]
    config = GRPOConfig(
        output_dir="/tmp",
        use_cpu=True,
        bf16=False,  # the weights are in the format of the others already
        per_device_train_batch_size=2,
        num_generations=2,
        max_completion_length=size,
        generation_kwargs={"min_new_tokens": size},
        report_to=[],
        save_strategy="no",
        model_init_kwargs={"dtype": getattr(torch, settings["dtype"])},
    )
    trainer = GRPOTrainer(
        model=settings["model"],
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        args=config,
        train_dataset=Dataset.from_list([{"prompt": "x"}] * 4),
    )
    trainer.model.eval()
    for line in sys.stdin:
        work = json.loads(line)
        wall, cpu = time.perf_counter(), time.process_time()
        tokens = _play(trainer, work, settings)
        print(json.dumps([tokens, time.perf_counter() - wall, time.process_time() - cpu]), file=answers, flush=True)


def _play(trainer: GRPOTrainer, work: dict[str, Any], settings: dict[str, Any]) -> int:
    tokens, slots = 0, settings["slots"]
    for start in range(0, len(work["prompts"]), slots):
        rows = [list(prompt) for prompt in work["prompts"][start : start + slots]]
        documents = work["documents"][start : start + slots]
        turns = len(documents[0]) + 1
        for turn in range(turns):
            written, _ = trainer._generate_single_turn(rows, None, {}, 2)
            tokens += sum(map(len, written))
            if turn < turns - 1:
                time.sleep(settings["search_ms"] / 1e3)
                rows = [[*row, *new, *found[turn]] for row, new, found in zip(rows, written, documents, strict=True)]
    return tokens


if __name__ == "__main__":
    main()

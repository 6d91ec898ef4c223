"""What a learner saves by computing once what all rows of a micro-batch begin with: the prompt of a run's episodes.

    python benchmarks/shared_beginning.py --model FOLDER --episodes outputs/zero/episodes/*.jsonl --write

The learner takes the same step twice a round, on episodes that a run has stored: as it comes, and with every row
computed for itself, the code being otherwise the same. That both find the same loss and norm of the gradient is
checked as far as bfloat16 tells; that they are the same in float32, a test shows.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from search_agents.learning import packing, rl_module
from search_agents.learning.provenance import describe_origin
from torch.nn.utils.rnn import pad_sequence

from benchmarks.learner import MICRO_BATCH_TOKENS, our_learner

RESULT = Path(__file__).parent / "results" / "shared-beginning.json"
WAYS = ("shared", "apart")


def main(argv: Sequence[str] | None = None) -> None:
    """Measure both ways, print the figures, and keep them if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of the model that the episodes were sampled with")
    parser.add_argument("--episodes", type=Path, nargs="+", required=True, help="files of steps in a run's folder")
    parser.add_argument("--rows", type=int, default=16, help="the first so many episodes of them [%(default)s]")
    parser.add_argument("--rounds", type=int, default=3, help="times that each way is measured [%(default)s]")
    parser.add_argument("--threads", type=int, default=1, help="threads of torch [%(default)s]")
    parser.add_argument("--float32", action="store_true", help="compute in float32 [in bfloat16]")
    parser.add_argument("--write", action="store_true", help=f"keep the figures as {RESULT.name}")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    lines = [line for file in arguments.episodes for line in file.read_text(encoding="utf-8").splitlines()]
    rows = stored_rows(lines[: arguments.rows])
    found = measure(arguments.model, rows, rounds=arguments.rounds, bfloat16=not arguments.float32)
    processor = describe_origin()["machine"]["processor"]
    text = json.dumps(
        {
            "machine": f"{processor}, {arguments.threads} thread(s) of torch {torch.__version__}",
            "date": time.strftime("%Y-%m-%d"),
            "model": Path(arguments.model).name,
            "format": "float32" if arguments.float32 else "bfloat16",
            **found,
        },
        indent=2,
    )
    print(text)
    if arguments.write:
        RESULT.write_text(text + "\n", encoding="utf-8")


def stored_rows(lines: Sequence[str]) -> list[dict[str, torch.Tensor]]:
    """Rows for `our_learner` of episodes that a run has stored, with made-up advantages."""
    generator = torch.Generator().manual_seed(1)
    rows = []
    for line in lines:
        segments = json.loads(line)["segments"]
        ids = torch.tensor([token for segment in segments for token in segment["token_ids"]])
        sampled = [segment["kind"] == "sampled" for segment in segments for _ in segment["token_ids"]]
        mask = torch.tensor(sampled)
        rows.append({"ids": ids, "mask": mask, "advantages": torch.randn(len(ids), generator=generator) * mask})
    return rows


def measure(model: str, rows: list[dict[str, torch.Tensor]], *, rounds: int, bfloat16: bool) -> dict[str, Any]:
    """Seconds of a step either way, in turns, after one to warm up, and how many times as fast sharing is.

    Raises:
        SystemExit: If the two do not find the same.
    """
    work = our_learner(model, bfloat16, lean=False)(rows)
    work()
    seconds: dict[str, list[float]] = {way: [] for way in WAYS}
    found: dict[str, tuple[float, float]] = {}
    computed: dict[str, list[int]] = {}
    for _ in range(rounds):
        for way in WAYS:
            with _computing(way) as computed[way]:
                begun = time.perf_counter()
                found[way] = work()
                seconds[way].append(time.perf_counter() - begun)
    if any(abs(ours / theirs - 1) > 0.1 for ours, theirs in zip(*found.values(), strict=True)):
        raise SystemExit(f"shared and apart do not find the same loss and norm of the gradient: {found}")
    middle = {way: statistics.median(each) for way, each in seconds.items()}
    return {
        "rows": len(rows),
        "tokens": sum(len(row["ids"]) for row in rows),
        "tokens_that_all_begin_with": _beginning(rows),
        "micro_batch_tokens": MICRO_BATCH_TOKENS,
        "tokens_computed": {way: sum(passes) for way, passes in computed.items()},
        "seconds": {way: [round(each, 4) for each in found] for way, found in seconds.items()},
        "times_as_fast": round(middle["apart"] / middle["shared"], 2),
        "loss": {way: loss for way, (loss, _) in found.items()},
        "grad_norm": {way: norm for way, (_, norm) in found.items()},
    }


def _beginning(rows: list[dict[str, torch.Tensor]]) -> int:
    ids, mask = (pad_sequence([row[name] for row in rows], batch_first=True) for name in ("ids", "mask"))
    return packing.shared_beginning(ids, mask)


@contextmanager
def _computing(way: str) -> Iterator[list[int]]:
    """Within the block the learner computes what all rows begin with in a way of `WAYS`: the tokens of each pass."""
    passes: list[int] = []

    def pack_rows(*given: torch.Tensor) -> packing.PackedRows:
        rows = packing.pack_rows(*given)
        passes.append(rows.input_ids.shape[1])
        return rows

    with ExitStack() as changes:
        changes.enter_context(mock.patch.object(rl_module, "pack_rows", pack_rows))
        if way == "apart":
            for module in (packing, rl_module):
                changes.enter_context(mock.patch.object(module, "shared_beginning", lambda *_: 0))
        yield passes


if __name__ == "__main__":
    main()

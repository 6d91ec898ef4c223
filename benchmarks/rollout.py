"""How fast the transformers engine generates, and how much its kept cache saves.

For each number of threads and number format it measures

* decoding: milliseconds a step of a whole batch with a given number of cached tokens,
* prefill: tokens a second of prompts (nothing cached) and of documents (behind a cache),
* rollouts of several turns: sampled tokens a second, against Hugging Face `generate`
  that computes the whole history again in every turn.

The model is a random Llama of the shape of the shipped tiny model; with random weights
nothing ends early, so both sides of the comparison do the same work. Wall time and CPU
time of the process are both told: on a busy machine compare the latter.

    python benchmarks/rollout.py --out benchmarks/results/rollout.json
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from search_agents.engines.base import SamplingParams
from search_agents.engines.transformers import TransformersEngine
from tokenizers import Tokenizer, models

PROMPT_TOKENS, DOCUMENT_TOKENS, SEGMENT_TOKENS, TURNS = 40, 150, 20, 4


def main() -> None:
    """Measure everything and print one line of JSON a configuration."""
    arguments = _arguments()
    rows = []
    for threads, number_format in itertools.product(arguments.threads, arguments.formats):
        torch.set_num_threads(threads)
        autocast = number_format == "autocast"
        model = _model(arguments, torch.float32 if autocast else getattr(torch, number_format))
        engine = TransformersEngine(model, _tokenizer(arguments.vocab), autocast=autocast)
        row = {
            "threads": threads,
            "format": number_format,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "batch": arguments.batch,
            "decode_ms_per_step": _decode(engine, arguments),
            "prefill_tokens_per_second": _prefill(engine, arguments),
            "rollout_tokens_per_second": _rollout(engine, arguments),
        }
        rows.append(row)
        print(json.dumps(row), flush=True)
    if arguments.out:
        report = {"date": time.strftime("%Y-%m-%d"), "machine": _machine(), "arguments": vars(arguments), "rows": rows}
        arguments.out.write_text(json.dumps(report, indent=1, default=str) + "\n")


def _decode(engine: TransformersEngine, arguments: argparse.Namespace) -> dict[str, float]:
    """Time of one step with about `cached` tokens in every row."""
    steps = 32
    cached = arguments.cached - steps // 2
    session = engine.open(_ragged(arguments, cached, 0.2), seeds=range(arguments.batch), max_tokens=cached * 2 + 99)
    rows = range(arguments.batch)
    session.sample(rows, SamplingParams(max_tokens=1))
    once = _timed(lambda: session.sample(rows, SamplingParams(max_tokens=1)), arguments.repeats)
    many = _timed(lambda: session.sample(rows, SamplingParams(max_tokens=1 + steps)), 1)
    return {clock: round((many[clock] - once[clock]) / steps * 1e3, 2) for clock in many}


def _prefill(engine: TransformersEngine, arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Tokens a second of prompts, then of documents behind what two turns have cached."""
    rows, once = range(arguments.batch), SamplingParams(max_tokens=1)
    prompts = _ragged(arguments, PROMPT_TOKENS, 0.2)
    session = engine.open(prompts, seeds=rows, max_tokens=PROMPT_TOKENS * 2 + 4 * DOCUMENT_TOKENS)
    rates = {"prompts": _rate(prompts, _timed(lambda: session.sample(rows, once), 1))}
    for turn in ("first", "second"):
        documents = _ragged(arguments, DOCUMENT_TOKENS, 0.2)
        session.extend(rows, documents)
        rates[f"{turn}_documents"] = _rate(documents, _timed(lambda: session.sample(rows, once), 1))
    return rates


def _rollout(engine: TransformersEngine, arguments: argparse.Namespace) -> dict[str, Any]:
    """Sampled tokens a second of whole rollouts, prefill included, ours and with `generate`."""
    prompts = _ragged(arguments, PROMPT_TOKENS, 0.2)
    documents = [_ragged(arguments, DOCUMENT_TOKENS, 0.2) for _ in range(TURNS - 1)]
    tokens = arguments.batch * SEGMENT_TOKENS * TURNS
    found = {}
    for name, play in (("engine", _play_engine), ("generate", _play_generate)):
        times = _timed(partial(play, engine, prompts, documents), arguments.repeats)
        found[name] = {clock: round(tokens / seconds, 1) for clock, seconds in times.items()}
    found["ratio"] = {clock: round(found["engine"][clock] / found["generate"][clock], 2) for clock in ("wall", "cpu")}
    return found


def _play_engine(engine: TransformersEngine, prompts: list[list[int]], documents: list[list[list[int]]]) -> None:
    rows = range(len(prompts))
    session = engine.open(prompts, seeds=rows, max_tokens=engine.max_context)
    for read in [*documents, None]:
        session.sample(rows, SamplingParams(max_tokens=SEGMENT_TOKENS))
        if read is not None:
            session.extend(rows, read)


def _play_generate(engine: TransformersEngine, prompts: list[list[int]], documents: list[list[list[int]]]) -> None:
    """The usual way: the whole history, padded on the left, goes through `generate` in every turn."""
    histories = [list(prompt) for prompt in prompts]
    for read in [*documents, None]:
        width = max(map(len, histories))
        ids = torch.tensor([[0] * (width - len(history)) + history for history in histories])
        mask = torch.tensor([[0] * (width - len(history)) + [1] * len(history) for history in histories])
        with torch.autocast("cpu", torch.bfloat16, enabled=engine.autocast):
            output = engine.model.generate(
                ids,
                attention_mask=mask,
                max_new_tokens=SEGMENT_TOKENS,
                do_sample=True,
                top_k=0,
                top_p=1.0,
                pad_token_id=0,
                eos_token_id=None,
            )
        histories = [
            [*history, *new, *more]
            for history, new, more in zip(
                histories, output[:, width:].tolist(), read or [[]] * len(histories), strict=True
            )
        ]


def _timed(act: Callable[[], object], repeats: int) -> dict[str, float]:
    """Median seconds by the wall clock and by the process's CPU clock."""
    walls, cpus = [], []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        act()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    return {"wall": statistics.median(walls), "cpu": statistics.median(cpus)}


def _rate(rows: Sequence[Sequence[int]], times: dict[str, float]) -> dict[str, float]:
    return {clock: round(sum(map(len, rows)) / seconds) for clock, seconds in times.items()}


def _ragged(arguments: argparse.Namespace, mean: int, spread: float) -> list[list[int]]:
    """Random tokens, the lengths spread evenly around the mean."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(int(mean * (1 - spread)), int(mean * (1 + spread)) + 1, arguments.batch)
    return [rng.integers(1, arguments.vocab, length).tolist() for length in lengths]


def _model(arguments: argparse.Namespace, dtype: torch.dtype) -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=arguments.vocab,
        hidden_size=arguments.hidden,
        intermediate_size=arguments.intermediate,
        num_hidden_layers=arguments.layers,
        num_attention_heads=arguments.heads,
        num_key_value_heads=arguments.kv_heads,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=0,
    )
    return transformers.LlamaForCausalLM(config).to(dtype).eval()


def _tokenizer(vocab_size: int) -> Any:
    """One word a token; enough for an engine that is never given text."""
    words = Tokenizer(models.WordLevel({f"w{number}": number for number in range(vocab_size)}, unk_token="w0"))
    return transformers.PreTrainedTokenizerFast(tokenizer_object=words)


def _machine() -> dict[str, Any]:
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        name = next((line.split(":")[1].strip() for line in cpuinfo.open() if line.startswith("model name")), name)
    return {
        "cpu": name,
        "capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument(
        "--formats",
        nargs="+",
        choices=["float32", "bfloat16", "autocast"],
        default=["float32", "bfloat16", "autocast"],
        help="of weights and computation; autocast keeps float32 weights and computes in bfloat16",
    )
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--cached", type=int, default=400, help="tokens in the cache while decoding is timed")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--hidden", type=int, default=192)
    parser.add_argument("--intermediate", type=int, default=512)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--heads", type=int, default=6)
    parser.add_argument("--kv-heads", type=int, default=2)
    parser.add_argument("--vocab", type=int, default=2048)
    parser.add_argument("--out", type=Path, help="file for the results")
    return parser.parse_args()


if __name__ == "__main__":
    main()

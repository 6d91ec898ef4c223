"""How fast vLLM plays search episodes: in turns, each in its own time, and against what it can do at most.

Episodes of three segments on FictionalWiki: two searches, each of which takes a while,
and the rest of the budget. What ends a segment is scripted, not sampled, so that every
way does equal work: a segment takes all its tokens, and the environment is told the
segment of a script. Five ways to the same number of tokens, in this order and all in
one process, round by round:

* the transformers engine, in turns (`collect`),
* vLLM, in turns,
* vLLM, asynchronously (`collect_async`),
* vLLM alone: as many tokens after the same prompts and documents, asked of its own
  interface, without an environment, a text or a search,
* a plain loop over Hugging Face's `generate`, which reads the whole history again in
  every turn; it waits for the searches of a turn, and has no environment either.

Ratios of one run are told, by the wall clock and by the CPU time of the process, which
does not count the time that a search takes; on a busy machine only the latter means much.

    .venv-vllm/bin/python benchmarks/vllm_rollout.py --model FOLDER
    .venv-vllm/bin/python benchmarks/vllm_rollout.py --model FOLDER --trl-python TRL_VENV/bin/python

With the Python of an environment that has TRL, its `GRPOTrainer` generates the same episodes in a process of its own
(`benchmarks/trl_rollout.py`), last in every round.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

THREADS = os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported

from search_agents.engines.base import FinishReason, SampledSegment, SamplingParams  # noqa: E402
from search_agents.models import SHIPPED  # noqa: E402
from search_agents.rollout import Episode, SegmentKind, Task, collect, collect_async  # noqa: E402

from search_env import SearchQAVectorEnv  # noqa: E402

MAX_TOKENS = 1536
TURNS = 3
_CLOCKS = ("wall", "cpu")


def main() -> None:
    """Measure every way in turn and print the medians and their ratios as JSON."""
    arguments = _arguments()
    if importlib.util.find_spec("vllm") is None:
        print("vLLM is not installed here. Type: make test-vllm, then .venv-vllm/bin/python " + sys.argv[0])
        return
    from search_agents.engines.transformers import TransformersEngine
    from search_agents.engines.vllm import VLLMEngine

    env = _environment(arguments)
    ours = TransformersEngine.from_pretrained(arguments.model, dtype=arguments.dtype)
    vllm = VLLMEngine(arguments.model, dtype=arguments.dtype, max_context=MAX_TOKENS)
    seconds: dict[str, list[tuple[float, float]]] = {}
    played: list[Episode] = []
    with _trl(arguments) as trl:
        for round_number in range(arguments.rounds + 1):  # the first one warms up
            ways = _ways(ours, vllm, env, arguments, round_number, played)
            measured = {name: partial(_measured, act) for name, act in ways.items()}
            for name, act in (measured | ({"trl": lambda: trl(played)} if trl else {})).items():
                taken = act()
                told = " ".join(f"{clock} {1 / each:.1f}" for clock, each in zip(_CLOCKS, taken, strict=True))
                print(f"round {round_number}: {name}: tokens/s by {told}", file=sys.stderr, flush=True)
                if round_number:
                    seconds.setdefault(name, []).append(taken)
    report: dict[str, Any] = {"arguments": {name: str(value) for name, value in vars(arguments).items()}}
    report["threads"] = THREADS
    for index, clock in enumerate(_CLOCKS):
        rates = {name: 1 / statistics.median(each[index] for each in taken) for name, taken in seconds.items()}
        report[clock] = {
            "tokens_per_second": {name: round(rate, 1) for name, rate in rates.items()},
            "rounds": {name: [round(1 / each[index], 1) for each in taken] for name, taken in seconds.items()},
            "vllm_async_vs_transformers": round(rates["vllm asynchronous"] / rates["transformers in turns"], 2),
            "vllm_async_vs_vllm_in_turns": round(rates["vllm asynchronous"] / rates["vllm in turns"], 2),
            "vllm_share_of_raw": round(rates["vllm asynchronous"] / rates["vllm alone"], 3),
            "vllm_async_vs_hf_loop": round(rates["vllm asynchronous"] / rates["hugging face loop"], 2),
            "transformers_vs_hf_loop": round(rates["transformers in turns"] / rates["hugging face loop"], 2),
        }
        if "trl" in rates:
            report[clock]["vllm_async_vs_trl"] = round(rates["vllm asynchronous"] / rates["trl"], 2)
            report[clock]["transformers_vs_trl"] = round(rates["transformers in turns"] / rates["trl"], 2)
    print(json.dumps(report, indent=1))


def _measured(act: Callable[[], int]) -> tuple[float, float]:
    """Seconds a token of one way, by both clocks."""
    wall, cpu = time.perf_counter(), time.process_time()
    tokens = act()
    return (time.perf_counter() - wall) / tokens, (time.process_time() - cpu) / tokens


def _ways(
    ours: Any,
    vllm: Any,
    env: SearchQAVectorEnv,
    arguments: argparse.Namespace,
    round_number: int,
    played: list[Episode],
) -> dict[str, Callable[[], int]]:
    """Each way as a function that returns the number of tokens it has sampled; `played` takes the last episodes."""
    # Other questions in every round, and an empty cache for every way: nothing is computed beforehand.
    first = round_number * arguments.episodes
    tasks = [Task(first + number, number, seed=first + number) for number in range(arguments.episodes)]

    def play(how: Callable[..., list[Episode]], engine: Any) -> int:
        vllm._llm.reset_prefix_cache()
        sampling = SamplingParams(max_tokens=arguments.segment_tokens)
        episodes = how(_Scripted(engine), env, tasks, sampling=sampling, max_tokens=MAX_TOKENS, chat=False)
        tokens = sum(int(episode.action_mask.sum()) for episode in episodes)
        assert tokens == arguments.episodes * TURNS * arguments.segment_tokens, "every way must do equal work"
        played[:] = episodes
        return tokens

    def alone() -> int:
        vllm._llm.reset_prefix_cache()
        return _replay(vllm._llm, played, arguments)

    return {
        "transformers in turns": lambda: play(collect, ours),
        "vllm in turns": lambda: play(collect, vllm),
        "vllm asynchronous": lambda: play(collect_async, vllm),
        "vllm alone": alone,
        "hugging face loop": lambda: _read_again(ours.model, played, arguments),
    }


def _replay(llm: Any, episodes: Sequence[Episode], arguments: argparse.Namespace) -> int:
    """Sample as many tokens, by vLLM's own interface and as fast as it takes them; documents are there at once."""
    vllm = importlib.import_module("vllm")
    final_only = importlib.import_module("vllm.sampling_params").RequestOutputKind.FINAL_ONLY
    documents = [
        [each.token_ids for each in episode.segments if each.kind is SegmentKind.OBSERVATION] for episode in episodes
    ]
    rows = [list(episode.segments[0].token_ids) for episode in episodes]
    to_come, tokens = list(range(len(rows))), 0

    def ask(row: int) -> None:
        params = vllm.SamplingParams(
            seed=row,
            max_tokens=arguments.segment_tokens,
            ignore_eos=True,
            logprobs=0,
            detokenize=False,
            output_kind=final_only,
        )
        llm.add_request(str(row), vllm.TokensPrompt(prompt_token_ids=rows[row]), params)

    for row in to_come[: arguments.slots]:
        ask(row)
    del to_come[: arguments.slots]
    while llm.has_unfinished_requests():
        for output in llm.step():
            row, ids = int(output.request_id), output.outputs[0].token_ids
            tokens += len(ids)
            if documents[row]:
                rows[row] += [*ids, *documents[row].pop(0)]
                ask(row)
            elif to_come:
                ask(to_come.pop(0))
    return tokens


def _read_again(model: Any, episodes: Sequence[Episode], arguments: argparse.Namespace) -> int:
    """Sample as many tokens by `generate`, in lock step, with the history of every turn as a new prompt."""
    import torch

    tokens, size = 0, arguments.segment_tokens
    for start in range(0, len(episodes), arguments.slots):
        members = episodes[start : start + arguments.slots]
        rows = [list(episode.segments[0].token_ids) for episode in members]
        documents = [[s.token_ids for s in each.segments if s.kind is SegmentKind.OBSERVATION] for each in members]
        for turn in range(TURNS):
            width = max(map(len, rows))
            ids = torch.tensor([[0] * (width - len(row)) + row for row in rows])
            mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
            with torch.no_grad():
                written = model.generate(
                    input_ids=ids,
                    attention_mask=mask,
                    do_sample=True,
                    temperature=1.0,
                    top_k=0,
                    top_p=1.0,
                    min_new_tokens=size,
                    max_new_tokens=size,
                    pad_token_id=0,
                )[:, width:].tolist()
            tokens += sum(map(len, written))
            if turn < TURNS - 1:
                time.sleep(arguments.search_ms / 1e3)
                rows = [[*row, *new, *found[turn]] for row, new, found in zip(rows, written, documents, strict=True)]
    assert tokens == len(episodes) * TURNS * size, "every way must do equal work"
    return tokens


@contextmanager
def _trl(arguments: argparse.Namespace) -> Iterator[Callable[[Sequence[Episode]], tuple[float, float]] | None]:
    """What plays given episodes in TRL and tells the seconds a token, by both clocks; None without its Python."""
    if not arguments.trl_python:
        yield None
        return
    names = ("dtype", "slots", "segment_tokens", "search_ms")
    settings = {"model": str(arguments.model.resolve())} | {name: getattr(arguments, name) for name in names}
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(settings, file)
        file.flush()
        command = [arguments.trl_python, str(Path(__file__).with_name("trl_rollout.py")), file.name]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
            yield partial(_ask_trl, process, arguments)
            process.communicate()


def _ask_trl(
    process: subprocess.Popen[str], arguments: argparse.Namespace, episodes: Sequence[Episode]
) -> tuple[float, float]:
    assert process.stdin is not None and process.stdout is not None
    observed = [[s for s in each.segments if s.kind is SegmentKind.OBSERVATION] for each in episodes]
    work = {
        "prompts": [list(episode.segments[0].token_ids) for episode in episodes],
        "documents": [[list(segment.token_ids) for segment in segments] for segments in observed],
    }
    print(json.dumps(work), file=process.stdin, flush=True)
    answer = process.stdout.readline()
    if not answer:
        raise SystemExit("TRL failed; see above.")
    tokens, wall, cpu = json.loads(answer)
    assert tokens == len(episodes) * TURNS * arguments.segment_tokens, "every way must do equal work"
    return wall / tokens, cpu / tokens


class _Scripted:
    """An engine whose segments take all their tokens, and tell a script as their text."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.capabilities = engine.capabilities

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def open(self, prompts: Any, **settings: Any) -> Any:
        return _ScriptedSession(self._engine.open(prompts, **settings), len(prompts))


class _ScriptedSession:
    def __init__(self, session: Any, rows: int) -> None:
        session._codec = _endless(session._codec)
        self._session = session
        self._turn = [0] * rows

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def sample(self, rows: Sequence[int], params: SamplingParams) -> list[SampledSegment]:
        segments = self._session.sample(rows, dataclasses.replace(params, stop=()))
        return [self._told(row, segment) for row, segment in zip(rows, segments, strict=True)]

    def begin(self, row: int, params: SamplingParams) -> None:
        self._session.begin(row, dataclasses.replace(params, stop=()))

    def step(self) -> list[tuple[int, SampledSegment]]:
        return [(row, self._told(row, segment)) for row, segment in self._session.step()]

    def _told(self, row: int, segment: SampledSegment) -> SampledSegment:
        self._turn[row] += 1
        last = self._turn[row] == TURNS
        text = "</think> <answer> so </answer>" if last else f"<begin_of_query> town {row} <end_of_query>"
        return dataclasses.replace(segment, text=text, finish=FinishReason.STOP)


def _endless(codec: Any) -> Any:
    """The codec of a model that never ends its text by itself."""
    from search_agents.engines.codec import TextCodec

    return TextCodec(codec.tokenizer, ())


class _Slow:
    """A retriever that takes its time."""

    def __init__(self, retriever: Any, seconds: float) -> None:
        self._retriever, self._seconds = retriever, seconds
        self.fingerprint = retriever.fingerprint

    def search(self, queries: Sequence[str], top_k: int) -> Any:
        time.sleep(self._seconds)
        return self._retriever.search(queries, top_k)


def _environment(arguments: argparse.Namespace) -> SearchQAVectorEnv:
    env = SearchQAVectorEnv(arguments.slots, dataset="fictional-wiki", split="test", prompt="base", top_k=3)
    env.retriever = _Slow(env.retriever, arguments.search_ms / 1e3)
    return env


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=SHIPPED["tiny"], help="model folder")
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16"])
    parser.add_argument("--episodes", type=int, default=32)
    parser.add_argument("--slots", type=int, default=16, help="episodes at a time")
    parser.add_argument("--segment-tokens", type=int, default=40)
    parser.add_argument("--search-ms", type=float, default=50.0, help="what one search takes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trl-python", help="interpreter of an environment with TRL")
    return parser.parse_args()


if __name__ == "__main__":
    main()

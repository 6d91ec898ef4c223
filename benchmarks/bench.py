"""The figures by which search-env is held against its peers: one run, one machine, ratios.

    make bench                                              (what runs without more; `ARGS` are those below)
    python benchmarks/bench.py --model FOLDER --trl-python TRL_VENV/bin/python --peer gem=GEM_VENV/bin/python --write

Runs, one after another, `vllm_rollout.py` (episodes against a loop over Hugging Face's `generate`, TRL and vLLM alone),
`learner.py` (training against TRL and a padded loop), `rllib.py` (an iteration against a plain loop) and
`environment.py` (a step against other packages'). What needs a package that is not there is left out and named. Each of
these scripts says what it measures and checks that all do equal work.

--write keeps benchmarks/results/bench.json and bench.md after each part. The whole takes an hour or two and wants a
machine that does nothing else; `--parts learner --write` measures one part anew and leaves the others as they are.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from search_agents.models import find_model

from benchmarks.environment import OURS, about, make_work, measure_in_turn, summary

HERE = Path(__file__).parent
RESULTS = HERE / "results"
VLLM_PYTHON = HERE.parent / ".venv-vllm" / "bin" / "python"
AIMS = {
    "rollout_vs_hf_loop": "at least 4 with vLLM, 2 with the engine of transformers",
    "rollout_vs_trl": "at least 4 with vLLM, 2 with the engine of transformers",
    "vllm_share_of_raw": "at least 0.95",
    "learner_speed_vs_trl": "at least 4",
    "learner_memory_vs_trl": "at most 0.7, and still at least twice as fast",
    "rllib_overhead": "at most 0.02",
    "vector_step_us": "at most 3, and the least of all",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Measure, print the page, and keep it if asked."""
    arguments = _arguments(argv)
    kept = RESULTS / "bench.json"
    figures: dict[str, Any] = json.loads(kept.read_text()) if arguments.write and kept.is_file() else {"parts": {}}
    for name in arguments.parts or PARTS:
        print(f"bench: {name}", file=sys.stderr, flush=True)
        left_out: dict[str, str] = {}
        told = {**about(["bench.py", "--parts", name]), "model": Path(find_model(arguments.model)).name}
        found = PARTS[name](arguments, left_out)
        if found or name not in figures["parts"]:  # what cannot be measured here may have been elsewhere
            figures = {**figures, **found, "parts": {**figures["parts"], name: {**told, "left_out": left_out}}}
        if arguments.write:
            kept.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
            kept.with_suffix(".md").write_text(markdown(figures), encoding="utf-8")
    print(markdown(figures))


def entry(ours: Sequence[float], theirs: Sequence[float], **more: Any) -> dict[str, Any]:
    """A ratio with its spread and the two figures it is made of.

    Args:
        ours: A rate in each round.
        theirs: The other's rate in the same rounds.
        **more: Goes into the entry.
    """
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    return {
        "value": round(median(ratios), 3),
        "spread": [round(min(ratios), 3), round(max(ratios), 3)],
        "raw": {"ours": round(median(ours), 1), "theirs": round(median(theirs), 1)},
        **more,
    }


def markdown(figures: Mapping[str, Any]) -> str:
    """The page."""
    lines = [
        "# Against the peers",
        "",
        "Ratios are medians of rounds that were taken in turn, with the lowest and the highest. Wall time is what a "
        "user waits; processor time does not count what other jobs took, nor a search that is waited for.",
        "",
        "| figure | value | spread | by processor time | ours | theirs | aim |",
        "| --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    for name in AIMS:
        for kind, each in (figures.get(name) or {}).items():
            spread, (ours, *theirs) = each["spread"], each["raw"].values()
            cells = [f"{name}, {kind}", each["value"], f"{spread[0]} to {spread[1]}", each.get("by_processor_time", "")]
            lines.append(f"| {' | '.join(map(str, [*cells, ours, *(theirs[:1] or ['']), AIMS[name]]))} |")
    lines.append("")
    for told in figures["parts"].values():
        lines.append(f"* `{told['command']}`, {told['date']}, {told['machine']}; model {told['model']}")
        lines += [f"* Not measured: {name}, for {why}." for name, why in told["left_out"].items()]
    return "\n".join(lines).rstrip() + "\n"


def _rollout(arguments: argparse.Namespace, left_out: dict[str, str]) -> dict[str, Any]:
    if not Path(arguments.vllm_python).exists():
        left_out["rollout"] = "there is no Python with vLLM: `make test-vllm` makes one"
        return {}
    trl = ["--trl-python", arguments.trl_python] if arguments.trl_python else []
    settings = ["--model", find_model(arguments.model), "--episodes", arguments.episodes, "--rounds", arguments.rounds]
    report = _json([arguments.vllm_python, HERE / "vllm_rollout.py", *settings, *trl])
    wall, cpu = (report[clock]["rounds"] for clock in ("wall", "cpu"))
    ways = {"vllm": "vllm asynchronous", "transformers": "transformers in turns"}
    peers = {"rollout_vs_hf_loop": "hugging face loop", "rollout_vs_trl": "trl"}
    figures: dict[str, Any] = {}
    for name, peer in peers.items():
        if peer in wall:
            figures[name] = {
                kind: entry(
                    wall[way],
                    wall[peer],
                    unit="sampled tokens per second",
                    by_processor_time=entry(cpu[way], cpu[peer])["value"],
                )
                for kind, way in ways.items()
            }
    if "trl" not in wall:
        left_out["rollout_vs_trl"] = "no --trl-python was given"
    share = entry(cpu["vllm asynchronous"], cpu["vllm alone"])["value"]
    figures["vllm_share_of_raw"] = {
        "vllm": entry(wall["vllm asynchronous"], wall["vllm alone"], unit="tokens per second", by_processor_time=share)
    }
    return figures


def _learner(arguments: argparse.Namespace, left_out: dict[str, str]) -> dict[str, Any]:
    if not arguments.trl_python:
        left_out["learner"] = "no --trl-python was given"
        return {}
    settings = ["--model", find_model(arguments.model), "--rounds", arguments.rounds]
    report = _json([sys.executable, HERE / "learner.py", *settings, "--trl-python", arguments.trl_python])
    speed: dict[str, Any] = {}
    memory: dict[str, Any] = {}
    for number_format in ("float32", "bfloat16"):
        found = report[number_format]
        rates = found["tokens_per_second"]
        fastest = max(("trl", "trl-lean"), key=lambda name: rates[name]["value"])
        for ours in ("ours", "ours-lean"):
            speed[f"{ours}, {number_format}"] = {
                "value": found["speed_ratio"][f"{ours}/{fastest}"],
                "spread": [
                    round(rates[ours]["spread"][0] / rates[fastest]["spread"][1], 2),
                    round(rates[ours]["spread"][1] / rates[fastest]["spread"][0], 2),
                ],
                "by_processor_time": found["cpu_speed_ratio"][f"{ours}/{fastest}"],
                "raw": {"ours": rates[ours]["value"], "theirs": rates[fastest]["value"]},
                "unit": "trained tokens per second",
            }
        rounds = found["peak_mib_rounds"]
        memory[number_format] = entry(rounds["ours-lean"], rounds["trl-lean"], unit="MiB that grow in a step")
    return {"learner_speed_vs_trl": speed, "learner_memory_vs_trl": memory}


def _rllib(arguments: argparse.Namespace, left_out: dict[str, str]) -> dict[str, Any]:
    # The tiny model: the smaller the model, the more of an iteration RLlib could be.
    report = _json([sys.executable, HERE / "rllib.py", "--rounds", arguments.rounds])
    return {"rllib_overhead": {"by processor time": report["rllib_overhead"]}}


def _environment(arguments: argparse.Namespace, left_out: dict[str, str]) -> dict[str, Any]:
    pythons = {OURS: sys.executable} | dict(arguments.peer)
    found = summary(measure_in_turn(pythons, make_work(40), 2 * arguments.rounds + 1))
    rows = {row["name"]: row["step_us"]["value"] for row in found["rows"]}
    ours = found["vector_step_us"]
    peers = {name: each for name, each in rows.items() if name != OURS}
    fastest = min(peers, key=peers.__getitem__, default=None)
    raw = {"ours": ours["value"]} | ({"theirs": peers[fastest], "whose": fastest} if fastest else {})
    return {"vector_step_us": {"ours": ours | {"raw": raw}}, "environments_us": rows}


PARTS = {"rollout": _rollout, "learner": _learner, "rllib": _rllib, "environment": _environment}


def _json(command: Sequence[Any]) -> dict[str, Any]:
    """What a script prints."""
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"bench: {Path(str(command[1])).name} failed with exit code {done.returncode}; see above.")
    found: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])
    return found


def _peer(text: str) -> tuple[str, str]:
    name, _, python = text.partition("=")
    return name, python


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny", help="of rollouts and learner: a model folder [%(default)s]")
    parser.add_argument("--vllm-python", default=str(VLLM_PYTHON), help="interpreter with vLLM and search-env")
    parser.add_argument("--trl-python", help="interpreter with TRL")
    parser.add_argument(
        "--peer", action="append", type=_peer, default=[], metavar="NAME=PYTHON", help="see environment.py"
    )
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), help="only these")
    parser.add_argument("--rounds", type=int, default=3, help="times that each is measured [%(default)s]")
    parser.add_argument("--episodes", type=int, default=32, help="of a round of rollouts [%(default)s]")
    parser.add_argument("--write", action="store_true", help="keep bench.json and bench.md, part by part")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()

"""The page of figures: ratios of rounds, what was left out, and nothing that was not measured."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import bench, rllib

ROLLOUT = {
    clock: {
        "rounds": {
            "vllm asynchronous": [8.0 * factor, 10.0 * factor, 12.0 * factor],
            "transformers in turns": [4.0, 4.0, 4.0],
            "vllm alone": [10.0 * factor, 10.0 * factor, 10.0 * factor],
            "hugging face loop": [2.0, 2.0, 2.0],
        }
    }
    for clock, factor in (("wall", 1.0), ("cpu", 2.0))
}


def test_a_ratio_is_the_median_of_rounds_with_its_spread() -> None:
    found = bench.entry([8.0, 10.0, 12.0], [2.0, 5.0, 2.0])
    assert (found["value"], found["spread"]) == (4.0, [2.0, 6.0])
    assert found["raw"] == {"ours": 10.0, "theirs": 2.0}


def test_the_cost_of_rllib_is_by_pairs_of_iterations() -> None:
    found = rllib.summary(
        {"rllib": [(9.0, 1.1), (9.0, 2.2), (9.0, 1.2)], "plain loop": [(9.0, 1.0), (9.0, 2.0), (9.0, 1.0)]}
    )
    assert found["rllib_overhead"]["value"] == pytest.approx(0.1)
    assert found["rllib_overhead"]["spread"] == pytest.approx([0.1, 0.2])


def test_the_page_names_what_was_not_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands: list[list[str]] = []

    def answer(command: list[Any]) -> dict[str, Any]:
        commands.append([str(part) for part in command])
        return ROLLOUT

    monkeypatch.setattr(bench, "_json", answer)
    monkeypatch.setattr(bench, "RESULTS", tmp_path)
    bench.main(["--parts", "rollout", "learner", "--vllm-python", sys.executable, "--write"])
    page, figures = capsys.readouterr().out, json.loads((tmp_path / "bench.json").read_text())
    assert page.rstrip("\n") == (tmp_path / "bench.md").read_text().rstrip("\n")
    assert len(commands) == 1 and "--trl-python" not in commands[0]
    assert figures["rollout_vs_hf_loop"]["vllm"]["value"] == 5.0
    assert figures["rollout_vs_hf_loop"]["vllm"]["by_processor_time"] == 10.0
    assert figures["vllm_share_of_raw"]["vllm"]["spread"] == [0.8, 1.2]
    assert "| rollout_vs_hf_loop, transformers | 2.0 |" in page and "rllib_overhead" not in page
    for name in ("rollout_vs_trl", "learner"):
        assert f"Not measured: {name}, for no --trl-python was given." in page
    assert str(tmp_path) not in page and sys.executable not in page
    monkeypatch.setattr(bench, "_json", lambda _: {"rllib_overhead": bench.entry([1.0], [2.0])})
    bench.main(["--parts", "rllib", "learner", "--write"])
    kept = json.loads((tmp_path / "bench.json").read_text())
    assert list(kept["parts"]) == ["rollout", "learner", "rllib"] and kept["rllib_overhead"]
    assert kept["rollout_vs_hf_loop"] == figures["rollout_vs_hf_loop"]
    assert kept["parts"]["learner"] == figures["parts"]["learner"]


def test_memory_has_the_spread_of_its_rounds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rates = {"ours": 20.0, "ours-lean": 15.0, "trl": 8.0, "trl-lean": 7.0}
    ratios = {"ours/trl": 2.5, "ours-lean/trl": 1.9}
    found = {
        "tokens_per_second": {name: {"value": rate, "spread": [rate - 1, rate + 1]} for name, rate in rates.items()},
        "speed_ratio": ratios,
        "cpu_speed_ratio": ratios,
        "peak_mib_rounds": {"ours-lean": [10, 12], "trl-lean": [20, 20]},
    }
    monkeypatch.setattr(bench, "_json", lambda _: {"float32": found, "bfloat16": found})
    bench.main(["--parts", "learner", "--trl-python", sys.executable])
    page = capsys.readouterr().out
    assert "| learner_memory_vs_trl, float32 | 0.55 | 0.5 to 0.6 |  | 11.0 | 20.0 |" in page
    assert "| learner_speed_vs_trl, ours, bfloat16 | 2.5 | 2.11 to 3.0 |" in page

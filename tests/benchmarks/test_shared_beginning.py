"""Both ways find the same, and the figures tell what was measured."""

from __future__ import annotations

import itertools
import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")

from search_agents.models import find_model

from benchmarks import shared_beginning


def episode(seed: int) -> dict[str, Any]:
    ids = range(50 + seed, 60 + seed)
    kinds = {"prompt": range(3, 43), "sampled": ids, "observation": range(100, 120)}
    return {"segments": [{"kind": kind, "token_ids": list(tokens)} for kind, tokens in kinds.items()]}


def test_a_step_is_measured_both_ways(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_beginning, "RESULT", tmp_path / "kept.json")
    times = itertools.accumulate(itertools.cycle([1.0, 0.1, 1.0, 2.0]))  # 0.1 s of a shared step, and 2 s of another
    monkeypatch.setattr(shared_beginning, "time", SimpleNamespace(perf_counter=times.__next__, strftime=time.strftime))
    file = tmp_path / "step_000001.jsonl"
    file.write_text("".join(json.dumps(episode(seed)) + "\n" for seed in range(5)))
    given = ["--model", str(find_model("tiny")), "--episodes", str(file), "--rows", "4", "--rounds", "2"]
    shared_beginning.main([*given, "--float32", "--write"])
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((tmp_path / "kept.json").read_text())
    assert (found["rows"], found["tokens"], found["tokens_that_all_begin_with"]) == (4, 280, 39)
    assert found["loss"]["shared"] == pytest.approx(found["loss"]["apart"], abs=1e-5)
    assert found["grad_norm"]["shared"] == pytest.approx(found["grad_norm"]["apart"], rel=1e-3)
    # Nothing behind a row's last sampled token is computed, nor that token.
    assert found["tokens_computed"] == {"shared": 4 * 49 - 3 * 39, "apart": 4 * 49}
    assert found["seconds"] == {"shared": [0.1, 0.1], "apart": [2.0, 2.0]} and found["times_as_fast"] == 20.0

"""Both ways find the same, and the figures tell what was measured."""

from __future__ import annotations

import json
from pathlib import Path
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
    file = tmp_path / "step_000001.jsonl"
    file.write_text("".join(json.dumps(episode(seed)) + "\n" for seed in range(5)))
    given = ["--model", str(find_model("tiny")), "--episodes", str(file), "--rows", "4", "--rounds", "2"]
    shared_beginning.main([*given, "--float32", "--write"])
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads((tmp_path / "kept.json").read_text())
    assert (found["rows"], found["tokens"], found["tokens_that_all_begin_with"]) == (4, 280, 39)
    assert found["loss"]["shared"] == pytest.approx(found["loss"]["apart"], abs=1e-5)
    assert found["grad_norm"]["shared"] == pytest.approx(found["grad_norm"]["apart"], rel=1e-3)
    assert [len(each) for each in found["seconds"].values()] == [2, 2]
    middle = {way: sum(each) / 2 for way, each in found["seconds"].items()}
    assert found["times_as_fast"] == pytest.approx(middle["apart"] / middle["shared"], rel=0.05)

"""The page tells every step of both runs, and where they come from."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

from benchmarks import number_format


def run_folder(folder: Path, commit: str, apart: float) -> str:
    folder.mkdir()
    machine = {"cores": 2, "processor": "Some processor"}
    meta = {"command": "search-env train --data /x/two --out /x/y", "started": "2026-01-02T03:04:05Z", "commit": commit}
    (folder / "meta.json").write_text(json.dumps({**meta, "machine": machine}))
    row = dict.fromkeys(number_format.COLUMNS, 0.5) | {"step": 1, "stage": "stage1", "mismatch_kl": apart}
    (folder / "metrics.jsonl").write_text(json.dumps(row | {"sample_seconds": 99.6}) + "\n")
    return str(folder)


def test_both_runs_are_told_step_by_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(number_format, "RESULT", tmp_path / "number-format.json")
    runs = ["--float32", run_folder(tmp_path / "a", "1234567890", 0.0839)]
    runs += ["--bfloat16", run_folder(tmp_path / "b", "abcdefghij with changes", -0.0008)]
    number_format.main([*runs, "--remark", "On a desk.", "--write"])
    text = capsys.readouterr().out
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if "| stage1" in line]
    assert cells == [
        ["float32", "1", "stage1", "0.5000", "0.5000", "0.5000", "0.5000", "0.0839", "100"],
        ["bfloat16", "1", "stage1", "0.5000", "0.5000", "0.5000", "0.5000", "-0.0008", "100"],
    ]
    assert "commit 1234567, 2 cores of Some processor" in text and "commit abcdefg with changes, 2" in text
    assert "`search-env train --data two`, 2026-01-02" in text and "On a desk." in text
    assert (tmp_path / "number-format.md").read_text() + "\n" == text
    kept = json.loads((tmp_path / "number-format.json").read_text())
    assert kept["runs"]["float32"]["steps"][0]["mismatch_kl"] == 0.0839

"""``search-env doctor`` prints one line a finding, and its exit code says whether something must be mended."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from search_agents import diagnosis
from search_agents.cli import main
from search_agents.diagnosis import Finding, Verdict

FINE = Finding("disk", Verdict.OK, "9 GiB free")
ABSENT = Finding("[web]", Verdict.NOTE, "not installed", "pip install it")
BROKEN = Finding("torch", Verdict.PROBLEM, "cannot\nbe \x1b[31mimported", "pip install torch")


def finds(monkeypatch: pytest.MonkeyPatch, *findings: Finding) -> dict[str, Any]:
    asked: dict[str, Any] = {}

    def diagnose(**settings: Any) -> Iterator[Finding]:
        asked.update(settings)
        yield from findings

    monkeypatch.setattr(diagnosis, "diagnose", diagnose)
    return asked


def test_each_finding_is_one_line_with_what_to_type(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    finds(monkeypatch, FINE, ABSENT, BROKEN)
    assert main(["doctor"]) == 2
    fine, absent, broken = capsys.readouterr().out.splitlines()
    assert fine.split() == ["ok", "disk", "9", "GiB", "free"]
    assert absent.startswith("note ") and absent.endswith("not installed  ->  pip install it")
    assert broken.startswith("problem ") and broken.endswith(r"cannot be \x1b[31mimported  ->  pip install torch")


def test_what_is_not_installed_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    finds(monkeypatch, FINE, ABSENT)
    assert main(["doctor"]) == 0


def test_json_is_an_array_of_findings(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked = finds(monkeypatch, FINE, BROKEN)
    assert main(["doctor", "--json", "--retriever", "{name: bm25, index: wiki}", "--out", "here"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert told[0] == {"check": "disk", "verdict": "ok", "text": "9 GiB free", "remedy": ""}
    assert [finding["verdict"] for finding in told] == ["ok", "problem"]
    assert asked["searching"] == {"name": "bm25", "index": "wiki"} and str(asked["out"]) == "here"

"""What is kept of a comparison can be read without the comparison."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from search_agents.cli import main

ROOT = Path(__file__).parents[2]


SETTINGS = ["--sets", "[{split: test}]", "--limit", "4", "--model", "tiny", "--model.dtype", "float32"]


def keep(*arguments: str) -> subprocess.CompletedProcess[str]:
    script = [sys.executable, "benchmarks/methods.py", *arguments]
    return subprocess.run(script, cwd=ROOT, timeout=120, capture_output=True, text=True, check=False)


def test_tables_and_two_episodes_of_each_method_are_kept(tmp_path: Path) -> None:
    compared = tmp_path / "compared"
    settings = [*SETTINGS, "--methods", "[standard-rag, oracle]", "--env.prompt", "base"]
    assert main(["bench", "methods", *settings, "--out", str(compared)]) == 0
    assert keep(str(compared), "--out", str(tmp_path / "kept")).returncode == 0
    page = (tmp_path / "kept" / "README.md").read_text()
    assert "## FictionalWiki-v0-test: 4 questions" in page and "| standard-rag" in page and "seed 0" in page
    results = json.loads((tmp_path / "kept" / "results.json").read_text())
    assert results["sets"]["FictionalWiki-v0-test"]["oracle"]["n"] == 4
    episodes = (tmp_path / "kept" / "episodes.md").read_text()
    assert episodes.count("    Question: ") == 4
    assert episodes.count("\n    > search ") >= 4 and "    * answer: " in episodes


def test_a_further_comparison_is_added_in_its_place_if_it_was_asked_alike(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    for name, method, prompt in (("one", "oracle", "base"), ("two", "random", "base"), ("other", "random", "instruct")):
        asked = ["--methods", f"[{method}]", "--env.prompt", prompt]
        assert main(["bench", "methods", *SETTINGS, *asked, "--out", str(tmp_path / name)]) == 0
    assert keep(str(tmp_path / "one"), "--out", str(kept), "--remark", "Four questions only.").returncode == 0
    assert keep(str(tmp_path / "two"), "--out", str(kept), "--add").returncode == 0
    results = json.loads((kept / "results.json").read_text())
    assert list(results["sets"]["FictionalWiki-v0-test"]) == results["config"]["methods"] == ["oracle", "random"]
    page, episodes = ((kept / name).read_text() for name in ("README.md", "episodes.md"))
    assert page.count("Four questions only.") == 1 and "| random" in page and "| oracle" in page
    assert episodes.count("## oracle,") == episodes.count("## random,") == 1
    refused = keep(str(tmp_path / "other"), "--out", str(kept), "--add")
    assert refused.returncode == 1 and "env.prompt" in refused.stderr
    assert json.loads((kept / "results.json").read_text()) == results

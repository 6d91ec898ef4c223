"""What is kept of a comparison can be read without the comparison."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from search_agents.cli import main

ROOT = Path(__file__).parents[2]


def test_tables_and_two_episodes_of_each_method_are_kept(tmp_path: Path) -> None:
    compared = tmp_path / "compared"
    sets = ["--sets", "[{split: test}]", "--limit", "4", "--methods", "[standard-rag, oracle]"]
    settings = ["--model", "tiny", "--model.dtype", "float32", "--env.prompt", "base"]
    assert main(["bench", "methods", *sets, *settings, "--out", str(compared)]) == 0
    script = [sys.executable, "benchmarks/methods.py", str(compared), "--out", str(tmp_path / "kept")]
    subprocess.run(script, cwd=ROOT, check=True, timeout=120, capture_output=True)
    page = (tmp_path / "kept" / "README.md").read_text()
    assert "## FictionalWiki-v0-test: 4 questions" in page and "| standard-rag" in page and "seed 0" in page
    results = json.loads((tmp_path / "kept" / "results.json").read_text())
    assert results["sets"]["FictionalWiki-v0-test"]["oracle"]["n"] == 4
    episodes = (tmp_path / "kept" / "episodes.md").read_text()
    assert episodes.count("    Question: ") == 4
    assert episodes.count("\n    > search ") >= 4 and "    * answer: " in episodes

"""The README's examples run as they stand."""

import ast
import re
from pathlib import Path

import pytest
from search_agents.cli import main

from search_env import plugins

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```", README, flags=re.M | re.S)


@pytest.mark.parametrize("code", EXAMPLES, ids=lambda code: code.strip().splitlines()[-1][:40])
def test_a_readme_example_runs(code, capsys):
    exec(compile(code, "README.md", "exec"), {})


AGENT_EXAMPLE = next(example for example in EXAMPLES if "class FirstHit" in example)
AGENT = AGENT_EXAMPLE[AGENT_EXAMPLE.index("class FirstHit") :].split("\n\n\n")[0]


def test_the_agent_of_the_readme_is_fifteen_lines_at_most_and_is_scored(capsys):
    assert len(AGENT.splitlines()) <= 15
    exec(compile(AGENT_EXAMPLE, "README.md", "exec"), {})
    found = ast.literal_eval(capsys.readouterr().out)
    assert (found["method"], found["n"], found["search_rate"], found["format_rate"]) == ("first-hit", 50, 1.0, 1.0)


@pytest.fixture
def first_hit(tmp_path, monkeypatch):
    """The agent of the README as an installed package."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "first_hit.py").write_text(AGENT)
    info = tmp_path / "first_hit-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: first-hit\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[search_env.agents]\nfirst-hit = first_hit:FirstHit\n")
    plugins.plugins.cache_clear()
    yield
    plugins.plugins.cache_clear()


def test_the_agent_of_the_readme_stands_on_a_leaderboard_beside_others(first_hit, tmp_path):
    board = str(tmp_path / "board")
    for method in ("first-hit", "random"):
        out = str(tmp_path / method)
        assert main(["eval", "--method", method, "--limit", "20", "--out", out]) == 0
        assert main(["leaderboard", "add", out, "--board", board]) == 0
    assert main(["leaderboard", "check", "--board", board]) == 0
    assert main(["leaderboard", "show", "--board", board]) == 0
    rows = [line for line in (tmp_path / "board" / "LEADERBOARD.md").read_text().splitlines() if line.startswith("|")]
    assert [name for name in ("first-hit", "random") if any(f"| {name} " in row for row in rows)] == [
        "first-hit",
        "random",
    ]

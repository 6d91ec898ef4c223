"""The README's examples run as they stand."""

import ast
import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```", README, flags=re.M | re.S)


@pytest.mark.parametrize("code", EXAMPLES, ids=lambda code: code.strip().splitlines()[-1][:40])
def test_a_readme_example_runs(code, capsys):
    exec(compile(code, "README.md", "exec"), {})


def test_the_agent_of_the_readme_is_fifteen_lines_at_most_and_is_scored(capsys):
    code = next(example for example in EXAMPLES if "class FirstHit" in example)
    agent = code[code.index("class FirstHit") :].split("\n\n\n")[0]
    assert len(agent.splitlines()) <= 15
    exec(compile(code, "README.md", "exec"), {})
    found = ast.literal_eval(capsys.readouterr().out)
    assert (found["method"], found["n"], found["search_rate"], found["format_rate"]) == ("first-hit", 50, 1.0, 1.0)

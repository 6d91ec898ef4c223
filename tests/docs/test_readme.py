"""The README's examples run as they stand."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```python\n(.*?)^```", README, flags=re.M | re.S)


@pytest.mark.parametrize("code", EXAMPLES, ids=lambda code: code.strip().splitlines()[-1][:40])
def test_a_readme_example_runs(code, capsys):
    exec(compile(code, "README.md", "exec"), {})


def test_the_agent_of_the_readme_is_fifteen_lines_at_most_and_scores():
    code = next(example for example in EXAMPLES if "first_hit" in example)
    function = code[code.index("def first_hit") :].split("\n\n")[0]
    assert len(function.splitlines()) <= 15
    namespace = {}
    exec(compile(code, "README.md", "exec"), namespace)
    assert namespace["score"](namespace["transcripts"]).search_rate == 1.0

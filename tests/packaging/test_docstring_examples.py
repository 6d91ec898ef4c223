"""The examples in docstrings do what they show."""

import doctest
import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHOWING = sorted(
    ".".join(path.relative_to(base).with_suffix("").parts).removesuffix(".__init__")
    for base, package in ((ROOT, "search_env"), (ROOT / "agents", "search_agents"))
    for path in (base / package).rglob("*.py")
    if ">>> " in path.read_text()
)


@pytest.mark.parametrize("module", SHOWING)
def test_the_examples_of_a_module_hold(module):
    result = doctest.testmod(importlib.import_module(module))
    assert result.attempted > 0
    assert result.failed == 0

"""Every risk of the table has a test here or in tests/reliability, and README.md names tests that exist."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
INDEX = Path(__file__).with_name("README.md")
RISKS = range(1, 24)
RELIABILITY = {10, 11, 12, 13, 14, 20, 21}


@cache
def functions() -> dict[str, dict[str, str]]:
    """By file, every test with its docstring."""
    found: dict[str, dict[str, str]] = defaultdict(dict)
    for file in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found[file.relative_to(TESTS).as_posix()][node.name] = ast.get_docstring(node) or ""
    return dict(found)


def numbers(docstring: str) -> set[int]:
    return {int(number) for number in re.findall(r"\b[Rr]isk (\d+)\b", docstring)}


def rows() -> dict[int, str]:
    """The rows of the index by number."""
    lines = INDEX.read_text(encoding="utf-8").splitlines()
    return {int(found[1]): line for line in lines if (found := re.match(r"\| (\d+) \|", line))}


@pytest.mark.parametrize("risk", RISKS)
def test_every_risk_has_a_test_that_names_it(risk: int) -> None:
    """The folder of a risk holds a test whose docstring begins with its number."""
    folder = "reliability/" if risk in RELIABILITY else "security/"
    naming = [name for file, tests in functions().items() if file.startswith(folder) for name in tests.items()]
    assert [name for name, docstring in naming if risk in numbers(docstring)]


@pytest.mark.parametrize("risk", RISKS)
def test_the_index_names_the_files_of_every_risk(risk: int) -> None:
    """Files that are named exist; files with a test of the risk are named."""
    listed = set(re.findall(r"`([\w/]+\.py)`", rows()[risk]))
    assert listed <= {path.relative_to(TESTS).as_posix() for path in TESTS.rglob("*.py")}
    telling = {file for file, tests in functions().items() if any(risk in numbers(text) for text in tests.values())}
    assert telling <= listed


def test_no_risk_is_named_that_is_not_in_the_index() -> None:
    """A number that means nothing is a mistake."""
    named = {risk for tests in functions().values() for text in tests.values() for risk in numbers(text)}
    assert named == set(rows()) == set(RISKS)


def test_the_policy_of_the_project_leads_here() -> None:
    """SECURITY.md links to the index."""
    policy = (TESTS.parent / "SECURITY.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)]+)\)", policy)
    assert "tests/security/README.md" in links
    assert all((TESTS.parent / link).exists() for link in links)

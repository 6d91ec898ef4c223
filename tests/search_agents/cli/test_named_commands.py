"""Every command that a message, a docstring, a recipe or a page names is one that can be typed."""

from __future__ import annotations

import ast
import importlib
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from search_agents.cli.command import _VERBS

ROOT = Path(__file__).parents[3]
SOURCES = sorted(path for package in ("agents/search_agents", "search_env") for path in (ROOT / package).rglob("*.py"))
TEXTS = [
    *sorted((ROOT / "configs").rglob("*.yaml")),
    *sorted(path for path in ROOT.rglob("*.md") if not any(part.startswith(".") for part in path.parts)),
]

_COMMAND = re.compile(r"search-env (?P<verb>[a-z]+)(?P<rest>[^\n`;]*)")
_OPTION = re.compile(r"(?<![\w-])(--[a-z][a-z0-9.-]*[a-z0-9])")


def _strings(source: Path) -> Iterator[str]:
    """The texts of a module, docstrings too; what a format string fills in stands as X."""
    tree = ast.parse(source.read_text(encoding="utf-8"))
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in ast.walk(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(part.value) if isinstance(part, ast.Constant) else "X" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.value


@cache
def _help(verb: str) -> tuple[str, bool]:
    """The help of a verb, and whether it takes a word without a dash."""
    parser = importlib.import_module(f"search_agents.cli.{verb}").parser(verb, "")
    return parser.format_help(), any(not action.option_strings for action in parser._actions)


def mistakes(text: str) -> list[str]:
    """What is wrong with the commands in a text."""
    found = []
    for command in _COMMAND.finditer(text):
        verb, rest = command["verb"], re.split(r"[.:,)] |search-env", command["rest"])[0]
        if verb not in _VERBS:
            # Without an option it is a sentence about search-env.
            found += [f"no verb {verb!r}: {command[0]}"] if _OPTION.search(rest) else []
            continue
        told, takes_a_word = _help(verb)
        found += [
            f"{verb} has no {option}: {command[0]}"
            for option in _OPTION.findall(rest)
            if "." not in option and option != "--help" and not re.search(rf"{option}(?![\w-])", told)
        ]
        if not takes_a_word and re.match(r" [a-z][\w-]* --", rest):
            found.append(f"{verb} takes no word: {command[0]}")
    return found


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_commands_that_a_module_names_can_be_typed(source: Path) -> None:
    assert [mistake for text in _strings(source) for mistake in mistakes(text)] == []


@pytest.mark.parametrize("page", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_commands_that_a_page_or_recipe_names_can_be_typed(page: Path) -> None:
    assert mistakes(page.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("Train one: search-env fit skr --model MODEL --out FOLDER.", "fit takes no word"),
        ("search-env retrain --config x", "no verb 'retrain'"),
        ("search-env eval --modle tiny", "eval has no --modle"),
    ],
)
def test_a_command_that_cannot_be_typed_is_found(text: str, wrong: str) -> None:
    assert len(found := mistakes(text)) == 1 and found[0].startswith(wrong)

"""``search-env new``: a package of your own to begin with, that works and passes its test."""

from __future__ import annotations

import argparse
import importlib.util
import keyword
import re
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template

import search_agents
from search_agents.cli.arguments import Parser, no_settings
from search_agents.cli.terminal import write
from search_agents.methods import method_names
from search_env import plugins
from search_env.datasets import dataset_names
from search_env.errors import ConfigError, RunError
from search_env.registration import ENVIRONMENTS
from search_env.retrieval import retriever_names
from search_env.rewards import PARTS, REWARDS

__all__ = ["parser", "run"]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_][A-Za-z0-9]+)*")


@dataclass(frozen=True)
class _Kind:
    """What can be added."""

    group: str
    attribute: Callable[[_Names], str]
    """What the entry point names."""
    use: str
    """A command that uses it."""
    taken: Callable[[], Container[str]]
    """The names that search-env and installed packages have."""


@dataclass(frozen=True)
class _Names:
    """The spellings of a name."""

    name: str

    @property
    def module(self) -> str:
        return self.name.replace("-", "_").lower()

    @property
    def class_name(self) -> str:
        return "".join(part[:1].upper() + part[1:] for part in re.split("[-_]", self.name))


def _taken_datasets() -> set[str]:
    return {*dataset_names(), *(env.removeprefix("SearchQA-").removesuffix("-v0") for env in ENVIRONMENTS)}


_KINDS = {
    "agent": _Kind(
        plugins.AGENTS, lambda names: names.class_name, "search-env eval --method $name --limit 50", method_names
    ),
    "retriever": _Kind(
        plugins.RETRIEVERS, lambda names: names.class_name, "search-env play --retriever $name", retriever_names
    ),
    "dataset": _Kind(
        plugins.DATASETS, lambda names: "load", "search-env play --env SearchQA-$name-v0", _taken_datasets
    ),
    "reward": _Kind(
        plugins.REWARDS,
        lambda names: names.module,
        "search-env play --reward $name",
        lambda: {*REWARDS, *PARTS, *plugins.plugins(plugins.REWARDS)},
    ),
}


def parser(verb: str, purpose: str) -> Parser:
    """The arguments of the verb."""
    made = Parser(
        verb,
        purpose,
        examples=(
            "search-env new agent my-agent",
            "search-env new retriever my-engine --out packages/my-engine",
            "search-env new dataset TriviaQA",
        ),
        more="Then, in the new folder: pip install -e . && pytest",
    )
    made.add_argument("kind", choices=tuple(_KINDS), help="what the package adds")
    made.add_argument("name", help="its name: letters and digits, joined by hyphens")
    made.add_argument("--out", type=Path, metavar="FOLDER", help="where the package goes, a new folder [NAME]")
    return made


def run(arguments: argparse.Namespace, settings: Sequence[str]) -> int:
    """Write the package."""
    no_settings(parser("new", ""), settings)
    names, kind = _Names(arguments.name), _KINDS[arguments.kind]
    if not _NAME.fullmatch(names.name) or keyword.iskeyword(names.module):
        raise ConfigError(
            f"{names.name!r} cannot be the name of a package: use letters and digits, joined by hyphens, "
            "for example my-agent."
        )
    if names.name in kind.taken():
        raise ConfigError(f"the name {names.name!r} of the {arguments.kind} is taken. Choose another name.")
    if importlib.util.find_spec(names.module) is not None:
        raise ConfigError(f"there is a Python module {names.module!r} already. Choose another name.")
    out: Path = arguments.out or Path(names.name)
    if out.exists():
        raise RunError(f"{out} exists already. Give another folder with --out.")
    values = {
        "name": names.name,
        "module": names.module,
        "class_name": names.class_name,
        "function": names.module,
        "kind": arguments.kind,
        "group": kind.group,
        "attribute": kind.attribute(names),
    }
    values["use"] = Template(kind.use).substitute(values)
    for template, target in (
        ("pyproject.toml.txt", out / "pyproject.toml"),
        ("README.md.txt", out / "README.md"),
        (f"{arguments.kind}/module.py.txt", out / names.module / "__init__.py"),
        (f"{arguments.kind}/test.py.txt", out / "tests" / f"test_{names.module}.py"),
    ):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(Template(_template(template)).substitute(values), encoding="utf-8")
    write(f"{out}\n\nNext: cd {out} && pip install -e . && pytest\nThen: {values['use']}")
    return 0


def _template(name: str) -> str:
    return files(search_agents).joinpath("templates", name).read_text(encoding="utf-8")

"""The recipes, prompts and retriever specs that ship with the package, found by name wherever it is installed.

In a checkout they lie in ``configs/`` at its root; in the wheel they are package data.
A path that exists always wins over a name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import search_agents
from search_agents.config.load import read_yaml
from search_env.dialects.base import PromptStyle
from search_env.errors import ConfigError, unknown_name
from search_env.retrieval import retriever_settings

__all__ = ["find_prompt", "find_recipe", "read_retriever", "recipes", "recipes_folder"]


def recipes_folder() -> Path:
    """The folder of the shipped recipes.

    Raises:
        ConfigError: If the installation has none.
    """
    package = Path(search_agents.__file__).resolve().parent
    for folder in (package / "configs", package.parents[1] / "configs"):
        if (folder / "train").is_dir():
            return folder
    raise ConfigError("this installation of search-env holds no recipes. Give a file with --config PATH.")


def recipes(verb: str) -> dict[str, Path]:
    """What is shipped by name, for example the recipes of ``train``, ``sft``, ``algorithms`` or ``ablations``."""
    return {file.stem: file for file in sorted((recipes_folder() / verb).glob("*.yaml"))}


def find_recipe(given: str, verb: str) -> Path:
    """The file that ``--config`` means: an existing path, or the name of a shipped recipe.

    Args:
        given: ``configs/train/fictional-wiki.yaml``, ``fictional-wiki.yaml`` or ``fictional-wiki``. For ``train`` also
            what is laid over a recipe: an algorithm, ``algorithms/grpo``, or a cluster, ``cluster/32b-32-gpus``.
        verb: ``train``, ``tune``, ``sample``, ``sft`` or ``eval``, ``ablations``, or ``retrieval`` for the spec of a
            retriever.

    Raises:
        ConfigError: If it is neither.
    """
    if Path(given).is_file():
        return Path(given)
    if verb == "train" and Path(given).parent.name in ("algorithms", "cluster"):
        verb = Path(given).parent.name
    known = recipes(verb)
    name = Path(given).name.removesuffix(".yaml")
    # A path with another folder in it names a file of the user's, not a recipe of ours.
    if name in known and Path(given).parent in (Path("."), Path(verb), Path("configs") / verb):
        return known[name]
    raise ConfigError(f"no config file at {given!r}, and {unknown_name(f'{verb} recipe', given, known)}")


def read_retriever(given: str) -> str | dict[str, Any]:
    """What a retriever given as one word means: a name as it is, a YAML file by what it holds.

    Args:
        given: ``bm25``, the path of a file, or a file in ``configs/retrieval``: ``bamboogle-online.yaml``.

    Raises:
        ConfigError: If there is no such file, or it holds no retriever; names the file, and line or key.
        MissingDependencyError: If the package that its retriever needs is not installed.
    """
    if not given.endswith((".yaml", ".yml")):
        return given
    file = find_recipe(given, "retrieval")
    spec = read_yaml(file)
    try:
        retriever_settings(spec)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from None
    return spec


def find_prompt(given: str) -> str:
    """What ``env.prompt`` means: a path or style as it is, or the file of a shipped prompt.

    Args:
        given: ``base``, ``instruct``, ``bare``, the path of a file, or the name of a file in ``configs/prompts``.
    """
    if given in tuple(PromptStyle) or Path(given).exists():
        return given
    shipped = recipes_folder() / "prompts" / f"{Path(given).name.removesuffix('.txt')}.txt"
    return str(shipped) if shipped.is_file() and Path(given).parent == Path(".") else given

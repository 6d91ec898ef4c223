"""The recipes and prompts that ship with the package, found by name wherever it is installed.

In a checkout they lie in ``configs/`` at its root; in the wheel they are package data.
A path that exists always wins over a name.
"""

from __future__ import annotations

from pathlib import Path

import search_agents
from search_env.dialects.base import PromptStyle
from search_env.errors import ConfigError, unknown_name

__all__ = ["find_prompt", "find_recipe", "recipes", "recipes_folder"]


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
    """The shipped recipes of a verb (``train``, ``eval``) by name, sorted."""
    return {file.stem: file for file in sorted((recipes_folder() / verb).glob("*.yaml"))}


def find_recipe(given: str, verb: str) -> Path:
    """The file that ``--config`` means: an existing path, or the name of a shipped recipe.

    Args:
        given: ``configs/train/fictional-wiki.yaml``, ``fictional-wiki.yaml`` or ``fictional-wiki``.
        verb: ``train`` or ``eval``.

    Raises:
        ConfigError: If it is neither.
    """
    if Path(given).is_file():
        return Path(given)
    known = recipes(verb)
    name = Path(given).name.removesuffix(".yaml")
    # A path with another folder in it names a file of the user's, not a recipe of ours.
    if name in known and Path(given).parent in (Path("."), Path(verb), Path("configs") / verb):
        return known[name]
    raise ConfigError(f"no config file at {given!r}, and {unknown_name(f'{verb} recipe', given, known)}")


def find_prompt(given: str) -> str:
    """What ``env.prompt`` means: a path or style as it is, or the file of a shipped prompt.

    Args:
        given: ``base``, ``instruct``, ``bare``, the path of a file, or the name of a file in ``configs/prompts``.
    """
    if given in tuple(PromptStyle) or Path(given).exists():
        return given
    shipped = recipes_folder() / "prompts" / f"{Path(given).name.removesuffix('.txt')}.txt"
    return str(shipped) if shipped.is_file() and Path(given).parent == Path(".") else given

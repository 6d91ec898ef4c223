"""What other packages add under a name: agents, retrievers, datasets and rewards, found through entry points.

A package declares one in its ``pyproject.toml``::

    [project.entry-points."search_env.agents"]
    my-agent = "my_package:MyAgent"

Names are known without importing anything; a plug-in is imported when it is used. One that
cannot be imported stops whoever asks for it by name, and only warns where all are listed.
A name of our own is never taken over.
"""

from __future__ import annotations

import warnings
from collections.abc import Container, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from search_env.errors import PluginError

__all__ = [
    "AGENTS",
    "DATASETS",
    "RETRIEVERS",
    "REWARDS",
    "PluginWarning",
    "is_ours",
    "load_plugin",
    "package_of",
    "plugins",
    "working_plugins",
]

AGENTS = "search_env.agents"
DATASETS = "search_env.datasets"
RETRIEVERS = "search_env.retrievers"
REWARDS = "search_env.rewards"

_OURS = "search-env"  # the distribution whose own entries need no check
_OF_SETTINGS = ("model_fields", "build")  # what the settings of a retriever have


class PluginWarning(UserWarning):
    """A plug-in is left out."""


@cache
def plugins(group: str) -> Mapping[str, EntryPoint]:
    """Every plug-in of a group by its name, sorted; nothing is imported.

    Where two packages use one name, ours or else the one that comes first in the alphabet keeps it, with a warning.

    Args:
        group: One of the constants of this module.
    """
    found: dict[str, EntryPoint] = {}
    ordered = sorted(entry_points(group=group), key=lambda point: (point.name, not is_ours(point), package_of(point)))
    for point in ordered:
        if point.name in found:
            warnings.warn(
                f"{group}: {point.name!r} of {package_of(point)} is left out: {package_of(found[point.name])} has one "
                "of that name. Rename one of them.",
                PluginWarning,
                stacklevel=2,
            )
        else:
            found[point.name] = point
    return found


def load_plugin(group: str, name: str) -> Any:
    """Import a plug-in.

    Raises:
        PluginError: If its package cannot be imported, or lacks what the entry point names; if it is a retriever
            and no class of settings.
    """
    point = plugins(group)[name]
    try:
        found = point.load()
    except Exception as error:  # whatever a foreign module raises while it is imported
        raise PluginError(
            f"the plug-in {name!r} ({point.value}) of the package {package_of(point)} cannot be loaded: "
            f"{type(error).__name__}: {error}. Mend the package, or remove it: pip uninstall {package_of(point)}"
        ) from error
    if group == RETRIEVERS and not (
        isinstance(found, type) and hasattr(found, "model_fields") and hasattr(found, "build")
    ):
        raise PluginError(
            f"the plug-in {name!r} ({point.value}) of the package {package_of(point)} is no class of settings with "
            f"build(), which a retriever is. Mend the package, or remove it: pip uninstall {package_of(point)}"
        )
    return found


def working_plugins(group: str, *, taken: Container[str] = ()) -> dict[str, Any]:
    """Import all plug-ins of other packages; those that cannot be used warn and are left out.

    Args:
        group: One of the constants of this module.
        taken: Names that are ours.
    """
    found = {}
    for name, point in plugins(group).items():
        if is_ours(point):
            continue
        if name in taken:
            _warn(
                f"the plug-in {name!r} of {package_of(point)} is left out: search-env has one of that name. Rename it."
            )
            continue
        try:
            found[name] = load_plugin(group, name)
        except PluginError as error:
            _warn(str(error))
    return found


def is_ours(point: EntryPoint) -> bool:
    """Whether a plug-in belongs to search-env itself."""
    return package_of(point) == _OURS


def package_of(point: EntryPoint) -> str:
    """The name of the package that a plug-in belongs to."""
    return point.dist.name if point.dist is not None else "(unknown)"


def _warn(message: str) -> None:
    warnings.warn(message, PluginWarning, stacklevel=3)

"""The ids of the environments.

Importing `search_env` registers them; ``gym.make("search_env:SearchQA-HotpotQA-v0")``
imports it by itself. The number at the end goes up whenever prompt, dialect, reward or
corpus change in a way that changes scores.
"""

from __future__ import annotations

import re
import warnings

import gymnasium as gym

from search_env.plugins import DATASETS, PluginWarning, package_of, plugins

__all__ = ["ENVIRONMENTS", "register_environments"]

_OURS = {
    "SearchQA-FictionalWiki-v0": "fictional-wiki",
    "SearchQA-HotpotQA-v0": "hotpotqa",
    "SearchQA-2WikiMultiHopQA-v0": "2wikimultihopqa",
    "SearchQA-MuSiQue-v0": "musique",
    "SearchQA-Bamboogle-v0": "bamboogle",
    "SearchQA-R1Searcher-v0": "r1-searcher",
    "SearchQA-Custom-v0": "custom",
}


def _of_packages() -> dict[str, str]:
    """The ids of the datasets of installed packages; one that cannot have an id of its own warns and is left out."""
    found = {}
    for name, point in plugins(DATASETS).items():
        env_id = f"SearchQA-{name}-v0"
        if env_id in _OURS or name in _OURS.values():
            problem = "search-env has one of that name"
        elif not re.fullmatch(r"[\w.-]+", name):  # to Gymnasium, ":" ends a module's name and "/" a namespace's
            problem = "the id of an environment is made of letters, digits and _ . -"
        else:
            found[env_id] = name
            continue
        message = f"the dataset {name!r} of {package_of(point)} has no environment: {problem}. Rename it."
        warnings.warn(message, PluginWarning, stacklevel=2)
    return found


ENVIRONMENTS = {**_OURS, **_of_packages()}
"""Every id, with the dataset behind it; a dataset of an installed package has one by its name."""


def register_environments() -> None:
    """Register every id with Gymnasium; those already registered stay as they are."""
    for env_id, dataset in ENVIRONMENTS.items():
        if env_id not in gym.registry:
            gym.register(
                env_id,
                entry_point="search_env.env:SearchQAEnv",
                vector_entry_point="search_env.vector:SearchQAVectorEnv",
                kwargs={"dataset": dataset},
            )

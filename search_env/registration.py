"""The ids of the environments.

Importing `search_env` registers them; ``gym.make("search_env:SearchQA-HotpotQA-v0")``
imports it by itself. The number at the end goes up whenever prompt, dialect, reward or
corpus change in a way that changes scores.
"""

from __future__ import annotations

import gymnasium as gym

from search_env.plugins import DATASETS, plugins

__all__ = ["ENVIRONMENTS", "register_environments"]

ENVIRONMENTS = {
    "SearchQA-FictionalWiki-v0": "fictional-wiki",
    "SearchQA-HotpotQA-v0": "hotpotqa",
    "SearchQA-2WikiMultiHopQA-v0": "2wikimultihopqa",
    "SearchQA-MuSiQue-v0": "musique",
    "SearchQA-Bamboogle-v0": "bamboogle",
    "SearchQA-R1Searcher-v0": "r1-searcher",
    "SearchQA-Custom-v0": "custom",
    **{f"SearchQA-{name}-v0": name for name in plugins(DATASETS)},
}
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

"""A retriever with a curriculum of its own hears how far the training is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from search_env.retrieval.base import InMemoryRetriever

STAGES = [{"name": "a", "reward": "stage1", "max_steps": 1}, {"name": "b", "reward": "stage2", "max_steps": 3}]


class Curriculum(InMemoryRetriever):
    heard: tuple[int, int] | None = None

    def at_step(self, step: int, steps: int) -> None:
        self.heard = (step, steps)


@pytest.mark.parametrize(("stages", "heard"), [(STAGES, [(0, 4), (1, 4)]), (None, [None, None])])
def test_each_step_is_told_before_its_episodes_are_sampled(
    env_config: dict[str, Any],
    make_config: Callable[..., Any],
    start: Callable[[Any], Any],
    stages: Any,
    heard: list[Any],
) -> None:
    config = make_config(**({"stages": stages} if stages else {}))
    documents = env_config["dataset"].documents
    algo = start(config.environment(env_config=env_config | {"retriever": Curriculum(documents)}))
    found = []
    for _ in heard:
        algo.train()
        found.append(algo.env_runner.env.retriever.heard)
    assert found == heard

"""GEM's own vector environment over the same environments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gem.vector.sync_vector_env import SyncVectorEnv  # type: ignore[import-not-found]
from gem.vector.vector_env import AutoresetMode  # type: ignore[import-not-found]

from benchmarks.peers.gem import makers
from benchmarks.peers.work import Outcome, Work, serve


class GemVector:
    """`SyncVectorEnv`."""

    distribution = "gem-llm"
    settings = "SyncVectorEnv (the default of make_vec) over the same environments, autoreset in the next step"

    def __init__(self, work: Work) -> None:
        envs = makers(work)
        self._envs = SyncVectorEnv(["qa"] * len(envs), envs, autoreset_mode=AutoresetMode.NEXT_STEP)

    def reset(self) -> None:
        """Ask every slot its question."""
        self._envs.reset()

    def actions(self, texts: Sequence[str]) -> Sequence[str]:
        """The texts themselves."""
        return texts

    def step(self, actions: Sequence[str]) -> Any:
        """All slots in one call."""
        return self._envs.step(actions)

    def read(self, result: Any) -> list[Outcome]:
        """What every slot got."""
        observations, rewards, terminations, truncations, _ = result
        ended = (terminations | truncations).tolist()
        return [Outcome(*one) for one in zip(observations, rewards.tolist(), ended, strict=True)]


if __name__ == "__main__":
    serve(GemVector)

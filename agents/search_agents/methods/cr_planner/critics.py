"""The critics that choose: four trained reward models, or the language model itself."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from search_agents.methods.cr_planner.mdp import Critic, critic_input, judged_text
from search_env.errors import ConfigError
from search_env.types import Prompt

if TYPE_CHECKING:
    from search_agents.methods.cr_planner.mdp import State
    from search_agents.methods.reward_model import RewardModel

__all__ = ["HOW_TO_TRAIN", "TrainedCritics", "read_choice", "verdict_prompt"]

HOW_TO_TRAIN = "search-env fit --method '{name: cr-planner, encoder: ENCODER}' --model MODEL --out FOLDER"
"""The command that makes the critics."""

_WANTED = {
    Critic.SUB_GOAL: "next action",
    Critic.RATIONALE: "next thought",
    Critic.QUERY: "search query",
    Critic.DOCUMENT: "document to read",
}
_NUMBER = re.compile(r"\d+")


class TrainedCritics:
    """Four reward models of one folder, a subfolder each.

    Args:
        folder: As `search_agents.methods.cr_planner.train.fit` writes it.
        dtype: Of their weights.
        device: Where they compute.

    Raises:
        ConfigError: If a critic is missing from the folder.
    """

    def __init__(self, folder: str | Path, *, dtype: str = "float32", device: str = "cpu") -> None:
        self._folder = Path(folder).expanduser()
        self._dtype, self._device = dtype, device
        missing = [critic for critic in Critic if not (self._folder / critic).is_dir()]
        if missing:
            raise ConfigError(f"{str(folder)!r} lacks the critics {', '.join(missing)}. Train them: {HOW_TO_TRAIN}.")

    def score(self, critic: Critic, state: State, candidates: Sequence[str]) -> list[float]:
        """How good a critic finds each candidate in a state."""
        read = critic_input(critic, state)
        scores = self._models[critic].score([judged_text(critic, read, candidate) for candidate in candidates])
        return [float(score) for score in scores]

    @property
    def fingerprint(self) -> str:
        """``critics-`` and a hash of the four models."""
        parts = " ".join(self._models[critic].fingerprint for critic in Critic)
        return f"critics-{hashlib.sha256(parts.encode()).hexdigest()[:16]}"

    @cached_property
    def _models(self) -> dict[Critic, RewardModel]:
        from search_agents.methods.reward_model import RewardModel  # here: it brings torch

        return {
            critic: RewardModel.load(self._folder / critic, dtype=self._dtype, device=self._device) for critic in Critic
        }


def verdict_prompt(critic: Critic, state: State, candidates: Sequence[str], *, chat: bool) -> Prompt:
    """Ask the language model for the number of the best candidate."""
    task = f"Which {_WANTED[critic]} helps most to answer the question? Reply with its number only."
    numbered = "\n".join(f"{number}. {candidate}" for number, candidate in enumerate(candidates, start=1))
    material = f"{critic_input(critic, state)}\n\n{numbered}"
    if chat:
        return Prompt(system=task, user=material)
    return Prompt(user=f"{task}\n\n{material}\n\nBest number:")


def read_choice(text: str, candidates: int) -> int:
    """The place of the candidate that a verdict names, counted from 0; the first if it names none.

    Args:
        text: The verdict; its first number counts.
        candidates: How many there are.
    """
    number = _NUMBER.search(text)
    return int(number[0]) - 1 if number and 1 <= int(number[0]) <= candidates else 0

"""The stages of a run: which reward is in force, and when the next one takes over.

A stage is over when its metrics have held for some steps in a row or when its steps are
spent, whichever comes first. Where a run stands is a few plain numbers, which are part
of every checkpoint: a run that is resumed goes on in the same stage, with the same
number of steps and the same streak behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from search_env.errors import ConfigError, unknown_name
from search_env.rewards import Reward, get_reward

__all__ = ["Schedule", "Stage"]

RewardSpec = str | Mapping[str, float] | Reward


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage."""

    name: str
    reward: RewardSpec | None = None
    """None keeps the reward that the environment was made with."""
    split: str | None = None
    """Split whose questions are asked; None keeps that of the environment."""
    max_steps: int | None = None
    """Training steps after which the stage is over in any case; None for no end."""
    until: Mapping[str, float] = field(default_factory=dict)
    """Metrics of the episodes of a step, each with the value that it must reach."""
    patience: int = 1
    """Steps in a row in which all of them must."""

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> Stage:
        """Read a stage as it is written in a config.

        Args:
            entry: ``name``, ``reward``, ``split``, ``max_steps`` and ``until``: metrics with their values, and
                ``patience``.

        Raises:
            ConfigError: If a key is unknown or missing, or a value makes no sense.
        """
        known = ("name", "reward", "split", "max_steps", "until")
        for key in entry:
            if key not in known:
                raise ConfigError(unknown_name("key of a stage", str(key), known))
        if not entry.get("name") or not entry.get("reward"):
            raise ConfigError(f"a stage needs a name and a reward, got {dict(entry)}.")
        until = dict(entry.get("until") or {})
        patience = until.pop("patience", 1)
        stage = cls(
            name=entry["name"],
            reward=entry["reward"],
            split=entry.get("split"),
            max_steps=entry.get("max_steps"),
            until=until,
            patience=patience,
        )
        for what, number in (("max_steps", stage.max_steps), ("patience", patience)):
            if number is not None and (not isinstance(number, int) or number < 1):
                raise ConfigError(f"{what} of stage {stage.name!r} must be a whole number of at least 1, not {number}.")
        get_reward(entry["reward"])
        return stage


class Schedule:
    """Where a run stands among its stages.

    Args:
        stages: In order, each as a mapping (see `Stage.from_dict`). None stands for a single stage without an end
            that keeps the environment's own reward.

    Raises:
        ConfigError: If a stage is malformed, two have the same name, or one that is not the last has no end.
    """

    def __init__(self, stages: Sequence[Mapping[str, Any]] | None = None) -> None:
        if stages is not None and not stages:
            raise ConfigError("stages is empty; give at least one stage, or leave it out.")
        self.stages = tuple(Stage.from_dict(stage) for stage in stages) if stages else (Stage(name="train"),)
        names = [stage.name for stage in self.stages]
        if len(set(names)) < len(names):
            raise ConfigError(f"stages must have different names, not {names}.")
        for stage in self.stages[:-1]:
            if stage.max_steps is None and not stage.until:
                raise ConfigError(f"stage {stage.name!r} never ends; give it max_steps, until, or both.")
        self._number, self._steps, self._streak = 0, 0, 0

    @property
    def stage(self) -> Stage:
        """The stage that is in force."""
        return self.stages[self._number]

    @property
    def done(self) -> bool:
        """Whether the last stage is over; training on then goes on in it."""
        return self._number == len(self.stages) - 1 and self._over

    @property
    def max_steps(self) -> int | None:
        """The most training steps of all stages together; None if one of them has no such end."""
        steps = [stage.max_steps for stage in self.stages if stage.max_steps is not None]
        return sum(steps) if len(steps) == len(self.stages) else None

    def observe(self, metrics: Mapping[str, float]) -> None:
        """Count one training step, and switch to the next stage if this one is over.

        Args:
            metrics: Of the step's episodes.

        Raises:
            ConfigError: If the stage waits for a metric that is not among them.
        """
        self._steps += 1
        for name in self.stage.until:
            if name not in metrics:
                raise ConfigError(f"stage {self.stage.name!r}: " + unknown_name("metric", name, metrics))
        # NaN, the metric of a step without a valid episode, reaches nothing.
        reached = all(metrics[name] >= value for name, value in self.stage.until.items())
        self._streak = self._streak + 1 if reached and self.stage.until else 0
        if self._over and self._number < len(self.stages) - 1:
            self._number, self._steps, self._streak = self._number + 1, 0, 0

    @property
    def _over(self) -> bool:
        stage = self.stage
        spent = stage.max_steps is not None and self._steps >= stage.max_steps
        return spent or (bool(stage.until) and self._streak >= stage.patience)

    def get_state(self) -> dict[str, Any]:
        """Where the run stands, as plain numbers and the stage's name."""
        return {"stage": self.stage.name, "steps": self._steps, "streak": self._streak}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on where a state says.

        Raises:
            ConfigError: If there is no such stage.
        """
        names = [stage.name for stage in self.stages]
        if state["stage"] not in names:
            raise ConfigError(
                "the checkpoint was written in another schedule: " + unknown_name("stage", state["stage"], names)
            )
        self._number, self._steps, self._streak = names.index(state["stage"]), state["steps"], state["streak"]

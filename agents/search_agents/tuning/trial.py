"""One trial of a sweep: a training run without a run folder, cut into iterations that end with an evaluation.

All stages of the recipe are trained, one after the other, as in `search-env train`; the
trial is over when the last one is. Its checkpoints are our own, which hold no pickle and
from which a run goes on exactly; Tune moves them between trials.

This module imports no torch: a trial's process must know its threads before it does.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray import tune

from search_agents.config.tuning import HELD_OUT_METRICS, with_settings
from search_env.errors import RetrieverUnavailable

__all__ = ["SweepTrial"]

_CHECKPOINT = "agent"


class SweepTrial(tune.Trainable):  # type: ignore[misc]  # ray is untyped
    """Trains a recipe with the values that Tune has drawn for some of its fields."""

    def setup(
        self,
        config: dict[str, Any],
        *,
        recipe: Mapping[str, Any],
        threads: int,
        steps_per_iteration: int,
        folder: str,
    ) -> None:
        """Load data and model.

        Args:
            config: The values drawn, by dotted name.
            recipe: The recipe that is swept, as plain values.
            threads: Threads of torch.
            steps_per_iteration: Training steps of an iteration.
            folder: Where the sweep was started; relative paths of the recipe mean files below it.
        """
        self._algorithm: Any = None  # a ReinforcePP, once it is built
        self._recipe, self._threads, self._folder = recipe, threads, folder
        self._steps_per_iteration = steps_per_iteration
        self._start(config)

    def _start(self, drawn: Mapping[str, Any]) -> None:
        from search_agents.learning.start import limit_threads, quiet_libraries

        limit_threads(self._threads)
        import torch

        from search_agents.evaluation.evaluate import HeldOut
        from search_agents.learning.build import build_algorithm

        torch.set_num_threads(self._threads)
        quiet_libraries()
        if Path(self._folder).is_dir():
            os.chdir(self._folder)  # Tune has changed to the folder of the trial
        config = with_settings(self._recipe, drawn)
        config = config.model_copy(update={"run": config.run.model_copy(update={"threads": self._threads})})
        self._config = config
        self._held_out = HeldOut(config)
        self._algorithm = build_algorithm(config)

    def step(self) -> dict[str, Any]:
        """Train some steps and evaluate.

        Returns:
            ``train``, the metrics of the last step; ``held_out``, those of the evaluation; where the trial stands.

        Raises:
            RetrieverUnavailable: If too many episodes are invalid, of a step or of the evaluation.
        """
        from search_agents.learning.step_record import metrics_row

        row: dict[str, Any] = {}
        for _ in range(self._steps_per_iteration):
            if self._algorithm.finished:
                break
            row = metrics_row(self._algorithm.train(), step=self._algorithm.steps_done)
        finished = self._algorithm.finished
        return {
            "steps": self._algorithm.steps_done,
            "stage": row.pop("stage", self._algorithm.stage),
            "train": row,
            "held_out": self._evaluate(),
            "stages_finished": finished,
            "done": finished,
        }

    def _evaluate(self) -> dict[str, float]:
        from search_agents.learning.build import evaluation_engine

        temperature = self._config.evaluation.temperatures[0]
        engine = evaluation_engine(self._algorithm, Path(self.logdir))
        found = self._held_out.measure("r1-searcher", engine, temperature=temperature)
        invalid = found.scores.invalid
        if invalid > self._algorithm.config.max_invalid_rate * len(found.transcripts) or not found.scores.n:
            raise RetrieverUnavailable(
                f"the retriever failed in {invalid} of the {len(found.transcripts)} episodes of the evaluation. "
                "Bring it back and give the same command."
            )
        return {name: float(getattr(found.scores, name)) for name in HELD_OUT_METRICS} | {"invalid": float(invalid)}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write where the trial stands."""
        from search_agents.learning.checkpoint import save_checkpoint

        save_checkpoint(self._algorithm, Path(checkpoint_dir) / _CHECKPOINT)

    def load_checkpoint(self, checkpoint: str) -> None:
        """Go on where a trial stood, this one or another of the sweep; the values drawn stay those of this one."""
        from search_agents.learning.checkpoint import load_checkpoint

        load_checkpoint(self._algorithm, Path(checkpoint) / _CHECKPOINT)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Make this process that of another trial, or of the same one with other values: torch is loaded already."""
        self.cleanup()
        self._start(new_config)
        return True

    def cleanup(self) -> None:
        """Free data and model."""
        if self._algorithm is not None:  # else the trial has failed before there was one
            self._algorithm.stop()
            self._algorithm = None

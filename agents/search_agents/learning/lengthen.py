"""A longer run out of one that stands: its last stage gets more steps.

No step depends on how many come after it, so the run ends as it would have if it had
been asked for at that length in the first place.
"""

from __future__ import annotations

from search_agents.config import SFTConfig
from search_agents.config.sections import StageSection
from search_agents.learning.run_folder import RunFolder
from search_env.errors import RunError

__all__ = ["lengthen"]


def lengthen(folder: RunFolder, max_steps: int) -> None:
    """Let the last stage of a run have more steps; `search_agents.learning.train.resume` then takes them.

    The evaluations of the trained model are dropped, for it is not trained yet; its model
    and its plots stay until new ones take their place.

    Args:
        folder: The run folder, of a run that is finished or was stopped.
        max_steps: Of the last stage. As many as it has already change nothing, so that the same command goes on after
            a stop.

    Raises:
        RunError: If they are fewer than it has, or there is nothing for more of them to begin at.
    """
    config = folder.started_with()
    if isinstance(config, SFTConfig):
        raise RunError(
            f"{folder.path} imitates for {config.sft.epochs} epochs, not for a number of steps. Leave --max-steps out, "
            f"or imitate again, beginning there: search-env sft --model {folder.path}"
        )
    *earlier, last = config.stages
    if max_steps < last.max_steps:
        raise RunError(
            f"{folder.path}: its last stage, {last.name}, has {last.max_steps} steps already. Give --max-steps more "
            "than that."
        )
    if max_steps > last.max_steps and folder.finished:
        _require_more_to_begin_at(folder, last)
    longer = last.model_copy(update={"max_steps": max_steps})
    folder.change_config(config.model_copy(update={"stages": (*earlier, longer)}))


def _require_more_to_begin_at(folder: RunFolder, last: StageSection) -> None:
    anew = f"Train on from its model in a new run: search-env train --model {folder.path}"
    done = sum(row["stage"] == last.name for row in folder.metrics())
    if done < last.max_steps:
        raise RunError(
            f"{folder.path}: its last stage, {last.name}, ended by `until` after {done} of {last.max_steps} steps and "
            f"would take no more. {anew}"
        )
    if not folder.checkpoints():
        raise RunError(f"{folder.path} has no checkpoint left to go on from. {anew}")

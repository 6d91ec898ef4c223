"""Checkpoints of a training run: complete or absent, readable by anything, resumed exactly.

::

    step_000010/
    ├── model.safetensors, config.json, tokenizer.json …   as Transformers reads them; of LoRA the adapters only:
    │                                                      adapter_model.safetensors, adapter_config.json
    ├── optimizer.safetensors                              AdamW's moments by parameter name
    ├── sampler.safetensors                                where a batch is sampled ahead: the weights, or adapters,
    │                                                      that sample it, which are those of the step before
    ├── state.json                                         steps done, stage, counters
    └── COMPLETE                                           written last

A checkpoint is written beside its place and renamed, so a folder of its name is whole.
The first learner writes the weights, the driver the rest: on several machines the folder
lies on a disk that all of them share.
Nothing in it is pickled: reading one runs no code. What is random follows from the seed
and the number of the step, so that number is all that has to be kept of it.

RLlib's own checkpoints (`Algorithm.save_to_path`) hold the same and more, as pickles.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from search_agents.learning.algorithm import ReinforcePP
from search_agents.learning.learner import OPTIMIZER_FILE
from search_agents.learning.rl_module import pack, unpack
from search_agents.learning.shared_folder import check_shared, holds_weights
from search_env.errors import RunError

__all__ = ["bytes_needed", "load_checkpoint", "save_checkpoint"]

_FORMAT = 1
_MARK = "COMPLETE"
_SAMPLER_FILE = "sampler.safetensors"


def save_checkpoint(algo: ReinforcePP, folder: str | Path) -> Path:
    """Write where a run stands.

    Args:
        algo: The run.
        folder: Where; must not exist.

    Returns:
        The folder.

    Raises:
        RunError: If the folder exists, or the weights that a learner wrote are not in it.
    """
    folder = Path(folder)
    if folder.exists():
        raise RunError(f"{folder} exists; a checkpoint is never written over. Give another folder, or delete it.")
    beside = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(beside, ignore_errors=True)  # what a stopped run left
    try:
        beside.mkdir(parents=True)
        algo.learner_group.on_first_learner(lambda learner: learner.save_to_folder(str(beside.resolve())))
        if (sampler := algo.get_sampler()) is not None:
            save_file({name: unpack(tensor) for name, tensor in sampler.items()}, beside / _SAMPLER_FILE)
        state = {"format": _FORMAT, **algo.get_progress()}
        (beside / "state.json").write_text(json.dumps(state, indent=2) + "\n", encoding="utf-8")
        check_shared(folder, found=holds_weights(beside, OPTIMIZER_FILE), who="the driver")
        (beside / _MARK).touch()
        for path in [*beside.iterdir(), beside]:
            _flush(path)
        beside.rename(folder)
    except (OSError, SafetensorError, RunError) as error:
        shutil.rmtree(beside, ignore_errors=True)
        if isinstance(error, SafetensorError) and f"os error {errno.ENOSPC}" in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from error
        raise
    _flush(folder.parent)
    return folder


def bytes_needed(algo: ReinforcePP, checkpoints: int) -> int:
    """About how much disk a run takes.

    Args:
        algo: The run.
        checkpoints: How many it keeps.

    Returns:
        Bytes of so many checkpoints and one that is being written (what is trained, its two moments, and what samples
        if that is another), and of the trained model.
    """
    trained, whole = algo.learner_group.on_first_learner(lambda learner: learner.bytes_of_weights())
    copies = 4 if algo.config.max_staleness else 3
    return int(copies * (checkpoints + 1) * trained + whole)


def load_checkpoint(algo: ReinforcePP, folder: str | Path) -> None:
    """Go on where a checkpoint stands.

    Args:
        algo: An algorithm of the same configuration.
        folder: The checkpoint.

    Raises:
        RunError: If it is not there, not complete, not one of ours, or a learner on another machine does not see it.
        ModelError: If it is of another model.
        ConfigError: If it stands in a stage that the configuration does not have.
    """
    folder = Path(folder).resolve()
    state = _read_state(folder)
    if algo.learner_group.is_remote:
        seen = algo.learner_group.on_every_learner(lambda _: holds_weights(folder, OPTIMIZER_FILE))
        check_shared(folder, found=all(seen), who="a learner")
    algo.learner_group.on_every_learner(
        lambda learner: learner.load_from_folder(str(folder), env_steps=state["env_steps"])
    )
    algo.set_progress(state)
    if (folder / _SAMPLER_FILE).is_file():
        algo.set_sampler({name: pack(tensor) for name, tensor in load_file(folder / _SAMPLER_FILE).items()})
    algo._iteration = state["steps_done"]


def _read_state(folder: Path) -> dict[str, Any]:
    if not (folder / _MARK).is_file():
        what = "does not exist" if not folder.exists() else f"is no complete checkpoint: it has no file {_MARK}"
        raise RunError(f"{folder} {what}. Give the folder of a checkpoint, such as RUN/checkpoints/step_000010.")
    try:
        state: dict[str, Any] = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        found = state["format"]
    except (OSError, ValueError, KeyError) as error:
        raise RunError(f"{folder / 'state.json'} cannot be read: {error}. Resume from another checkpoint.") from None
    if found != _FORMAT:
        raise RunError(
            f"{folder} has format {found}, and this version reads {_FORMAT}. Resume with the version it is of."
        )
    return state


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

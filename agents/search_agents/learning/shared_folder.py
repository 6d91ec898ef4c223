"""A run's folder lies on a disk that all its machines share: what the first learner writes, the others must find."""

from __future__ import annotations

from pathlib import Path

from search_env.errors import RunError

__all__ = ["check_shared", "holds_weights"]


def holds_weights(folder: str | Path, *files: str) -> bool:
    """Whether this process sees a model, or an adapter, in a folder, and the files that belong beside it."""
    return any(Path(folder).glob("*model*.safetensors")) and all((Path(folder) / name).is_file() for name in files)


def check_shared(folder: str | Path, *, found: bool, who: str) -> None:
    """Say what to do where one process does not find what another wrote.

    Args:
        folder: Where it was written.
        found: Whether it was found.
        who: Did not find it.

    Raises:
        RunError: If it was not found.
    """
    if not found:
        raise RunError(
            f"the learner's weights are not in {folder} where {who} looks for them: its machine and that of the first "
            "learner do not share that disk. Keep the run on storage that all machines mount at the same path: "
            "--out FOLDER."
        )

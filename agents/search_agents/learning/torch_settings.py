"""Settings of torch that hold for a whole process of a training."""

from __future__ import annotations

import torch

__all__ = ["use_torch"]


def use_torch(threads: int | None) -> None:
    """Set torch up for a learner or an env runner.

    Where RLlib seeds a process it asks torch for deterministic algorithms, and torch then fills every tensor that it
    allocates with NaN as well, so that a read of what nobody wrote would show. Nothing depends on that filling: without
    it every result is the same to the bit, and a learner's step on a CPU takes a little less time.

    Args:
        threads: Of torch's operations; None leaves them as they are.
    """
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a property
    if threads:
        torch.set_num_threads(threads)

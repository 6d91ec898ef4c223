"""Settings of torch that hold for a whole process of a training."""

from __future__ import annotations

import ctypes
import platform

import torch

__all__ = ["keep_memory", "use_torch"]

# The names of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


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


def keep_memory() -> None:
    """Let the process keep the memory that it frees, for the next step on a CPU allocates the same again.

    glibc gives every large tensor back to the system at once, and its pages are filled with zeros when the next one
    takes them: a tenth of a learner's time (benchmarks/allocator.py). The peak stays the same. Where the C library is
    another one nothing is done, and a preloaded allocator keeps memory as it pleases.
    """
    if platform.libc_ver()[0] == "glibc":
        c_library = ctypes.CDLL(None)
        c_library.mallopt(_M_MMAP_MAX, 0)
        c_library.mallopt(_M_TRIM_THRESHOLD, -1)

"""What becomes of the memory that a learner frees."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import torch
from search_agents.learning.torch_settings import keep_memory

if sys.argv[1] == "kept":
    keep_memory()
faults = []
for _ in range(40):  # aligned pieces do not fit each other's places at first
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(64, 2**18)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(sum(faults[-10:]))
"""


def page_faults(memory: str) -> int:
    done = subprocess.run([sys.executable, "-c", FAULTS, memory], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps memory as it pleases")
def test_memory_that_was_freed_is_not_asked_from_the_system_again() -> None:
    pages = 10 * 64 * 2**20 // 4096
    assert page_faults("kept") <= pages / 4 < pages / 2 < page_faults("given back")

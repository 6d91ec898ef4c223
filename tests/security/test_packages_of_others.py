"""A broken package of somebody else breaks itself only, and ours takes no name that is not its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import search_env

ROOT = Path(search_env.__file__).parents[1]
GROUPS = ("agents", "retrievers", "datasets", "rewards")
TIMED = """
import resource, sys
from search_agents.cli import main
code = main(sys.argv[1:])
print("seconds", resource.getrusage(resource.RUSAGE_SELF).ru_utime, file=sys.stderr)
sys.exit(code)
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A folder of installed packages, one of which cannot be imported, and one named agents."""
    (tmp_path / "broken_one.py").write_text(
        f"open({str(tmp_path / 'imported')!r}, 'w').close()\nraise ImportError('libfoo.so.7 is missing')\n"
    )
    info = tmp_path / "broken_one-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-one\nVersion: 1.0\n")
    entries = "\n".join(f"[search_env.{group}]\nbroken-{group} = broken_one:thing\n" for group in GROUPS)
    (info / "entry_points.txt").write_text(entries)
    (tmp_path / "agents").mkdir()
    (tmp_path / "agents" / "__init__.py").write_text("OWNER = 'openai-agents'\n")
    return tmp_path


def run(site: Path, code: str, *argv: str) -> subprocess.CompletedProcess[str]:
    paths = [str(site), str(ROOT), str(ROOT / "agents")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-c", code, *argv]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)


def test_help_imports_no_package_of_others_and_takes_under_a_second(site: Path) -> None:
    """Risk 23: a broken plug-in and the help."""
    done = run(site, TIMED, "--help")
    assert done.returncode == 0 and "train a search agent" in done.stdout
    assert float(done.stderr.split()[-1]) < 1
    assert not (site / "imported").exists()


def test_what_does_not_need_a_broken_package_works(site: Path) -> None:
    """Risk 23: a broken plug-in while an episode is played."""
    code = """
import gymnasium as gym, search_env
env = gym.make("SearchQA-FictionalWiki-v0")
env.reset(seed=0)
env.step("<begin_of_query> film <end_of_query>")
print("played")
"""
    done = run(site, f"import warnings; warnings.simplefilter('error')\n{code}")
    assert done.stdout == "played\n", done.stderr


@pytest.mark.parametrize(
    ("kind", "group", "ours"),
    [
        ("methods", "agents", "r1-searcher"),
        ("retrievers", "retrievers", "dense"),
        ("datasets", "datasets", "hotpotqa"),
        ("environments", "datasets", "SearchQA-HotpotQA-v0"),
        ("rewards", "rewards", "stage2"),
    ],
)
def test_a_broken_package_is_named_where_it_is_listed_and_left_out(
    kind: str, group: str, ours: str, site: Path
) -> None:
    """Risk 23: a broken plug-in is a warning with its name."""
    listed = run(site, TIMED, "list", kind)
    assert listed.returncode == 0
    assert f"  {ours}\n" in listed.stdout and "broken" not in listed.stdout
    assert listed.stderr.count(f"'broken-{group}' (broken_one:thing) of the package broken-one cannot be loaded") == 1


def test_a_broken_package_stops_who_asks_for_it(site: Path) -> None:
    """Risk 23: a broken plug-in is one message."""
    asked = run(site, TIMED, "eval", "--method", "broken-agents", "--limit", "1", "--out", str(site / "out"))
    assert asked.returncode == 2
    assert "broken-one" in asked.stderr and "libfoo.so.7 is missing" in asked.stderr
    assert "pip uninstall broken-one" in asked.stderr and "Traceback" not in asked.stderr


def test_all_plugins_are_loaded_but_the_broken_ones_which_are_named(site: Path) -> None:
    """Risk 23: a broken plug-in among others."""
    code = (
        "from search_env.plugins import *\nfor group in (AGENTS, DATASETS, RETRIEVERS, REWARDS): working_plugins(group)"
    )
    done = run(site, code)
    assert done.returncode == 0
    assert all(f"'broken-{group}' (broken_one:thing) of the package broken-one" in done.stderr for group in GROUPS)


def test_the_name_agents_is_left_to_its_owner(site: Path) -> None:
    """Risk 22: openai-agents, which owns the module `agents`, works beside us."""
    code = "import search_agents, search_env, agents; print(agents.OWNER)"
    assert run(site, code).stdout == "openai-agents\n"


def test_the_wheel_is_told_to_hold_our_two_packages_and_the_recipes_only() -> None:
    """Risk 22: packaging; what comes of it is looked at in tests/packaging/test_wheel.py."""
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["packages"] == ["search_env", "agents/search_agents"]
    assert wheel["force-include"] == {"configs": "search_agents/configs"}

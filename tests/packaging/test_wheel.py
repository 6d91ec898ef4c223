"""The wheel owns two packages and nothing else, and carries what the commands need."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", folder, ROOT], check=True, capture_output=True, text=True)
    (file,) = folder.glob("*.whl")
    with zipfile.ZipFile(file) as opened:
        yield opened


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """A folder like the site-packages of a user."""
    folder = tmp_path_factory.mktemp("site-packages")
    wheel.extractall(folder)
    return folder


def run_from(folder, code):
    """What a program prints that finds our packages in a folder, away from the repository."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, check=True, capture_output=True, text=True
    )
    return done.stdout.splitlines()


def test_the_wheel_owns_search_env_and_search_agents_only(wheel):
    """Risk 22: what the wheel installs."""
    owned = {name.split("/")[0] for name in wheel.namelist()}
    (metadata,) = (name for name in owned if name.endswith(".dist-info"))
    assert owned == {"search_env", "search_agents", metadata}


def test_every_module_of_both_packages_is_in_the_wheel(wheel):
    sources = {
        path.relative_to(base).as_posix()
        for base, package in ((ROOT, "search_env"), (ROOT / "agents", "search_agents"))
        for path in (base / package).rglob("*")
        if path.suffix == ".py" or path.name == "py.typed"
    }
    assert sources <= set(wheel.namelist())


def test_every_recipe_is_in_the_wheel_and_found_by_name(wheel, installed):
    recipes = {path.relative_to(ROOT).as_posix() for path in (ROOT / "configs").rglob("*.yaml")}
    assert "configs/train/fictional-wiki.yaml" in recipes
    assert {f"search_agents/{path}" for path in recipes} <= set(wheel.namelist())
    found = run_from(
        installed, "from search_agents.config.recipes import find_recipe; print(find_recipe('fictional-wiki', 'train'))"
    )
    assert found == [str(installed / "search_agents/configs/train/fictional-wiki.yaml")]


def test_the_tiny_model_is_in_the_wheel_and_at_most_ten_megabytes(wheel, installed):
    files = [name for name in wheel.namelist() if name.startswith("search_agents/models/fictional-wiki/")]
    names = {name.rsplit("/", 1)[1] for name in files}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    assert {Path(name).suffix for name in names} <= {".json", ".safetensors", ".md", ".jinja", ".txt"}
    assert sum(wheel.getinfo(name).file_size for name in files) <= 10_000_000
    found = run_from(installed, "from search_agents.models import find_model; print(find_model('tiny'))")
    assert found == [str(installed / "search_agents/models/fictional-wiki")]


def test_an_unpacked_wheel_writes_the_page_of_the_viewer(installed):
    code = """
from search_agents.evaluation.viewer import make_page
print(make_page({"runs": [{"name": "mine", "path": "mine", "total": 0, "episodes": []}], "documents": []})[:15])
"""
    assert run_from(installed, code) == ["<!doctype html>"]


def test_the_wheel_has_the_command_and_the_licence(wheel):
    (folder,) = {name.split("/")[0] for name in wheel.namelist() if ".dist-info/" in name}
    assert "search-env = search_agents.cli:main" in wheel.read(f"{folder}/entry_points.txt").decode()
    assert "Apache License" in wheel.read(f"{folder}/licenses/LICENSE").decode()
    metadata = wheel.read(f"{folder}/METADATA").decode()
    assert "License-Expression: Apache-2.0" in metadata
    plain = [line for line in metadata.splitlines() if line.startswith("Requires-Dist:") and "extra ==" not in line]
    assert not [line for line in plain if any(name in line for name in ("torch", "ray", "transformers", "datasets"))]


def test_an_unpacked_wheel_plays_an_episode(installed):
    """Risk 22: the wheel alone, away from this folder."""
    code = """
import gymnasium as gym, search_env
env = gym.make("search_env:SearchQA-FictionalWiki-v0")
env.reset(seed=0)
observation, reward, terminated, truncated, info = env.step("</think><begin_of_query>who was born<end_of_query>")
print(search_env.__file__)
print(observation.strip().splitlines()[0], terminated, truncated)
"""
    assert run_from(installed, code) == [
        str(installed / "search_env" / "__init__.py"),
        "<begin_of_documents> False False",
    ]

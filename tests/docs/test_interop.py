"""The examples of agents/INTEROP.md run as they stand, each where its trainer is installed."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "agents" / "INTEROP.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, flags=re.M | re.S))
NEEDS = {
    "TRL with our rollout": "trl",
    "TRL with function calls": None,
    "verifiers": "verifiers",
    "SkyRL-Gym": "skyrl_gym",
    "OpenEnv": "openenv",
    "Search-R1": None,
}


def example(section: str, language: str = "python") -> str:
    (code,) = re.findall(rf"^```{language}\n(.*?)^```", SECTIONS[section], flags=re.M | re.S)
    return code


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("section", NEEDS)
def test_an_example_runs(section, capsys, monkeypatch, tmp_path):
    if NEEDS[section]:
        pytest.importorskip(NEEDS[section])
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    monkeypatch.chdir(tmp_path)
    exec(compile(example(section), "INTEROP.md", "exec"), {"__name__": "example"})
    printed = capsys.readouterr().out
    if "print(" in example(section):
        assert "Doc 1(Title:" in printed or "(1) " in printed


def test_the_config_for_verifiers_is_one_it_takes(monkeypatch, tmp_path):
    vf = pytest.importorskip("verifiers.v1")
    (tmp_path / "my_search.py").write_text(example("verifiers"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_search", raising=False)
    config = tomllib.loads(example("verifiers", "toml"))
    env = vf.load_environment(vf.resolve_env_config(config["env"]))
    tasks = list(env.taskset.take(config["select"]["limit"]))
    assert len(tasks) == 100
    vf.EvalClientConfig(**config["client"])
    assert vf.SamplingConfig(**config["sampling"]).model_dump()["stop"] == ["</search>", "</answer>"]


def test_every_recipe_of_a_checkpoint_is_in_the_table():
    from search_agents.config import EvalConfig, load_config, recipes

    rows = re.findall(r"^\| `([\w-]+)` \| `(.*?)` \| `([\w-]+)` \|$", SECTIONS["Released checkpoints"], flags=re.M)
    found = {name: load_config(EvalConfig, [file]) for name, file in recipes("eval").items()}
    assert {name: (model, dialect) for name, model, dialect in rows} == {
        name: (config.model.path, config.env.dialect) for name, config in found.items() if "/" in config.model.path
    }

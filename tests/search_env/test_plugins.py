"""Packages add agents, retrievers, datasets and rewards; a broken one hurts nobody who did not ask for it."""

import subprocess
import sys
from importlib.metadata import distribution

import gymnasium as gym
import pytest

from search_env import plugins
from search_env.datasets import dataset_names, load
from search_env.errors import ConfigError, PluginError
from search_env.retrieval import get_retriever, retriever_names, retriever_settings
from search_env.rewards import get_reward

MODULE = """
from search_env.rewards import Reward, RewardPart
def politeness(transcript): return 0.5
preset = Reward((RewardPart("polite", 2.0, politeness),))
number = 3
def load(split, data, skipped=None):
    from search_env import Dataset, Document, Question
    question = Question(id="q", text="Who?", answers=("I",))
    return Dataset(name="mine", split=split, questions=(question,), documents=(Document(id="1", title="I", text="me"),))
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Makes packages as pip would leave them: a module, and the entry points in its dist-info."""
    monkeypatch.syspath_prepend(str(tmp_path))

    def installed(package, entries, module=MODULE):
        (tmp_path / f"{package}.py").write_text(module)
        info = tmp_path / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = [f"[search_env.{group}]\n{name} = {package}:{what}\n" for group, name, what in entries]
        (info / "entry_points.txt").write_text("\n".join(lines))
        plugins.plugins.cache_clear()

    yield installed
    plugins.plugins.cache_clear()


def test_a_reward_of_a_package_is_a_part_and_a_preset(install):
    install("polite", [("rewards", "polite", "politeness"), ("rewards", "very-polite", "preset")])
    assert get_reward("polite").parts[0].weight == 1.0
    assert get_reward({"f1": 1.0, "polite": 0.2}).parts[1].weight == 0.2
    assert get_reward("very-polite").parts[0].weight == 2.0
    with pytest.raises(PluginError, match="'very-polite' is no reward part: it is a Reward"):
        get_reward({"very-polite": 1.0})
    with pytest.raises(ConfigError, match="Did you mean 'polite'"):
        get_reward("polit")


def test_a_dataset_of_a_package_is_loaded_by_name_and_is_an_environment(install, tmp_path):
    install("myset", [("datasets", "MySet", "load")])
    assert "MySet" in dataset_names() and load("MySet", split="dev").name == "mine"
    code = "import gymnasium as gym, search_env; print(gym.make('SearchQA-MySet-v0').reset(seed=0)[1]['question'])"
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}"]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.strip() == "Who?" and found.stderr == ""


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("HotpotQA", "search-env has one of that name"),
        ("hotpotqa", "search-env has one of that name"),
        ("my set", "the id of an environment is made of letters, digits and _ . -"),
        ("pkg:mine", "the id of an environment is made of letters, digits and _ . -"),
    ],
)
def test_a_dataset_of_a_package_takes_no_environment_of_ours_and_stops_no_import(install, tmp_path, name, problem):
    install("bold", [("datasets", name, "load")])
    code = (
        "import gymnasium as gym, search_env\n"
        "print(gym.spec('SearchQA-HotpotQA-v0').kwargs, len([name for name in gym.registry if 'SearchQA' in name]))"
    )
    command = [sys.executable, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {code}"]
    found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout == "{'dataset': 'hotpotqa'} 7\n"
    assert f"PluginWarning: the dataset {name!r} of bold has no environment: {problem}. Rename it." in found.stderr


def test_a_broken_plugin_warns_where_all_are_listed_and_stops_only_who_asks_for_it(install):
    """Risk 23: a broken plug-in."""
    install("fine", [("rewards", "fine", "politeness")])
    install("bad", [("rewards", "broken", "politeness")], module="raise RuntimeError('out of cheese')")
    install("hollow", [("rewards", "hollow", "nothing")])
    with pytest.warns(plugins.PluginWarning) as told:
        assert list(plugins.working_plugins(plugins.REWARDS)) == ["fine"]
    messages = sorted(str(each.message) for each in told)
    assert "'broken' (bad:politeness) of the package bad cannot be loaded: RuntimeError: out of cheese" in messages[0]
    assert "pip uninstall bad" in messages[0] and "'hollow'" in messages[1]
    assert get_reward("fine").parts[0].name == "fine"
    with pytest.raises(PluginError, match="out of cheese"):
        get_reward("broken")


def test_a_name_of_ours_is_never_taken_over_and_of_two_packages_the_first_keeps_it(install):
    install("bold", [("rewards", "stage2", "preset"), ("rewards", "twice", "politeness")])
    install("later", [("rewards", "twice", "preset")])
    with pytest.warns(plugins.PluginWarning, match="'twice' of later is left out: bold has one of that name"):
        assert plugins.plugins(plugins.REWARDS)["twice"].value == "bold:politeness"
    assert get_reward("stage2").parts[0].name == "f1"
    with pytest.warns(plugins.PluginWarning, match="'stage2' of bold is left out: search-env has one"):
        assert "stage2" not in plugins.working_plugins(plugins.REWARDS, taken={"stage2"})


def test_an_entry_of_ours_is_kept_though_another_package_comes_first_in_the_alphabet(install):
    install("aaa", [("retrievers", "dense", "Settings")])
    with pytest.warns(plugins.PluginWarning, match="'dense' of aaa is left out: search-env has one of that name"):
        assert plugins.is_ours(plugins.plugins(plugins.RETRIEVERS)["dense"])


def test_a_retriever_of_a_broken_package_says_what_to_do(install):
    install("lost", [("retrievers", "lost", "Settings")], module="import a_module_that_is_missing")
    assert "lost" in retriever_names()
    with pytest.raises(PluginError, match="No module named 'a_module_that_is_missing'"):
        get_retriever("lost", ())


def test_our_own_entries_are_no_plugins_of_others():
    own = {point.name for point in distribution("search-env").entry_points if point.group == plugins.RETRIEVERS}
    assert own and not own & set(plugins.working_plugins(plugins.RETRIEVERS))
    assert all(env_id in gym.registry for env_id in ("SearchQA-Custom-v0", "SearchQA-HotpotQA-v0"))


def test_a_retriever_of_a_package_that_is_no_class_of_settings_is_told_and_left_out(install):
    install("numeric", [("retrievers", "numeric", "number")])
    with pytest.raises(PluginError, match=r"'numeric' .* is no class of settings with build\(\)"):
        retriever_settings("numeric")
    with pytest.warns(plugins.PluginWarning, match="no class of settings"):
        assert "numeric" not in plugins.working_plugins(plugins.RETRIEVERS)

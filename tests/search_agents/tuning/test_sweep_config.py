"""What a sweep file may say, and how it is told that it may not."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from search_agents.cli import main
from search_agents.cli.tune import read_sweep
from search_agents.config import find_recipe, load_config, recipes
from search_agents.config.load import Override
from search_agents.config.tuning import SweepConfig, base_recipe, check_sweep, with_settings

from search_env.errors import ConfigError

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def checked(tmp_path: Path) -> Any:
    """Reads a sweep as a file would give it, and checks it."""

    def check(**values: Any) -> Any:
        file = tmp_path / "sweep.yaml"
        file.write_text(yaml.safe_dump(values))
        sweep = load_config(SweepConfig, [file])
        return check_sweep(sweep, base_recipe(sweep))

    return check


@pytest.mark.parametrize("name", sorted(recipes("tune")))
def test_a_shipped_sweep_can_be_drawn_whole(name: str) -> None:
    sweep = load_config(SweepConfig, [find_recipe(name, "tune")])
    assert len(check_sweep(sweep, base_recipe(sweep))) >= 4


def test_every_combination_of_listed_values_and_ends_of_ranges_is_checked(checked: Any) -> None:
    configs = checked(
        space={
            "learner.lr": {"loguniform": ["1e-5", "1e-3"]},
            "stages.1.reward": {"choice": ["stage2", {"f1": 1.0}]},
            "learner.group_size": {"randint": [4, 8]},
        },
        settings={"rollout.temperature": 0.7, "learner.lora": None},
    )
    drawn = {(each.learner.lr, str(each.stages[1].reward), each.learner.group_size) for each in configs}
    assert len(drawn) == len(configs) == 8
    assert (1e-5, "{'f1': 1.0}", 8) in drawn
    assert {each.rollout.temperature for each in configs} == {0.7}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "space is empty"),
        ({"space": {"learner.lrr": {"choice": [1e-4]}}}, "unknown field 'learner.lrr'. Did you mean 'learner.lr'?"),
        ({"space": {"lerner.lr": {"choice": [1e-4]}}}, "unknown field 'lerner.lr'. Did you mean 'learner.lr'?"),
        (
            {"space": {"learner.lr": {"choice": [1e-4]}}, "settings": {"learner.group_sise": 4}},
            "settings: unknown field 'learner.group_sise'. Did you mean 'learner.group_size'?",
        ),
        ({"space": {"learner.lr": {"choise": [1e-4]}}}, "Allowed keys in space: loguniform, uniform"),
        ({"space": {"learner.lr": {"choice": [1], "grid": [1]}}}, "exactly one of loguniform, uniform"),
        ({"space": {"learner.lr": {"loguniform": [1e-3, 1e-5]}}}, "the least value comes first"),
        ({"space": {"learner.lr": {"choice": ["fast"]}}}, "the space allows learner.lr = fast, which no run can have"),
        ({"space": {"learner.group_size": {"randint": [1, 4]}}}, "needs group_size >= 2"),
        ({"space": {"stages.7.reward": {"choice": ["stage2"]}}}, "stages has items 0 to 1, not 7"),
        ({"space": {"evaluation.questions": {"choice": [10, 20]}}}, "cannot be swept: the scores of trials"),
        (
            {"space": {"learner.num_gpus_per_learner": {"choice": [0, 1]}}},
            "all trials of a sweep have the same resources",
        ),
        ({"space": {"run.threads": {"choice": [1, 2]}}}, "the threads of a trial are its `resources.cpus`"),
        (
            {"space": {"env.top_k": {"choice": [1, 3]}}, "scheduler": "pbt"},
            "env.top_k cannot be changed in a trial that runs, which pbt does",
        ),
        ({"space": {"learner.lr": {"choice": [1e-4]}}, "scheduler": "pbt", "samples": 1}, "pbt needs a population"),
        ({"space": {}, "metric": "held_out/f2"}, "unknown metric 'held_out/f2'. Did you mean 'held_out/f1'?"),
        ({"space": {}, "max_iterations": 1}, "asha.grace_period (2) must not be more than max_iterations (1)"),
    ],
)
def test_what_cannot_be_swept_is_told_with_the_name_that_was_meant(
    checked: Any, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError) as told:
        checked(**values)
    assert message in str(told.value)


def test_fields_that_go_together_only_in_some_combinations_are_refused_before_a_trial_fails(checked: Any) -> None:
    space = {"learner.group_size": {"choice": [2, 8]}, "learner.minibatch_size": {"choice": [32, 128]}}
    with pytest.raises(ConfigError, match=r"group_size = 2, learner\.minibatch_size = 128") as told:
        checked(space=space)
    assert "more than the batch holds" in str(told.value)


def test_a_flag_that_names_a_field_of_the_recipe_holds_for_all_trials() -> None:
    flags = [
        Override(key="learner.advantage", value="grpo", source="--learner.advantage"),
        Override(key="asha.grace_period", value="1", source="--asha.grace-period"),
    ]
    sweep = read_sweep([find_recipe("asha", "tune")], flags)
    assert (sweep.asha.grace_period, sweep.settings["learner.advantage"]) == (1, "grpo")
    assert base_recipe(sweep).learner.advantage == "grpo"


def test_values_of_a_trial_are_laid_over_the_recipe_and_nothing_else_is() -> None:
    recipe = base_recipe(SweepConfig())
    changed = with_settings(recipe.model_dump(mode="json"), {"stages.1.reward": {"em": 2.0}, "learner.lr": 3e-5})
    assert changed.stages[1].reward == {"em": 2.0}
    assert changed.learner == recipe.learner.model_copy(update={"lr": 3e-5})
    assert (changed.stages[0], changed.env, changed.run) == (recipe.stages[0], recipe.env, recipe.run)


def test_an_unknown_reward_is_refused_on_the_command_line_before_anything_heavy_is_loaded(
    tmp_path: Path, capsys: Captured
) -> None:
    (tmp_path / "sweep.yaml").write_text(json.dumps({"space": {"stages.1.reward": {"choice": ["stage2", "stage9"]}}}))
    assert main(["tune", "--config", str(tmp_path / "sweep.yaml"), "--out", str(tmp_path / "out")]) == 2
    assert "'stage9'. Did you mean" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_dry_run_prints_the_sweep_and_writes_nothing(tmp_path: Path, capsys: Captured) -> None:
    assert main(["tune", "--samples", "3", "--learner.lr", "1e-4", "--dry-run", "--out", str(tmp_path / "out")]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["samples"], printed["settings"]["learner.lr"]) == (3, "1e-4")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["wandb", "trackio"])
def test_a_logger_without_its_package_is_told_with_the_command_that_installs_it(
    name: str, tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    from search_agents.tuning import loggers

    monkeypatch.setattr(loggers, "find_spec", lambda package: None)
    assert main(["tune", "--set", f"loggers=[{name}]", "--out", str(tmp_path / "out")]) == 2
    assert f"pip install 'search-env[{name}]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_trackio_gets_a_run_for_each_trial_and_only_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    from types import SimpleNamespace

    from search_agents.tuning.loggers import TrackioLogger

    events: list[Any] = []

    def begin(**given: Any) -> Any:
        name = given["name"]
        events.append(("begin", name, given["project"], given["config"]))
        return SimpleNamespace(
            log=lambda *, metrics, step: events.append((name, step, metrics)),
            finish=lambda: events.append(("end", name)),
        )

    monkeypatch.setitem(sys.modules, "trackio", SimpleNamespace(init=begin))
    logger = TrackioLogger("mine")
    one, two = (SimpleNamespace(trial_id=name, config={"learner.lr": 0.1}) for name in ("one", "two"))
    logger.log_trial_start(one)
    logger.log_trial_start(two)
    result = {"training_iteration": 2, "train": {"stage": "x", "kl": None}, "held_out": {"f1": 0.5}, "steps": 8}
    logger.log_trial_result(1, one, result)
    logger.log_trial_end(two, failed=True)
    assert events == [
        ("begin", "one", "mine", {"learner.lr": 0.1}),
        ("begin", "two", "mine", {"learner.lr": 0.1}),
        ("one", 2, {"held_out/f1": 0.5, "steps": 8}),
        ("end", "two"),
    ]

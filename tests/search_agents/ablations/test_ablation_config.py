"""What an ablation trains follows from its file and the command line; what is wrong is told before anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from search_agents.cli import main
from search_agents.config import (
    AblationConfig,
    SFTConfig,
    TrainConfig,
    differing_keys,
    load_config,
    parse_setting,
    recipes,
)

from search_env.errors import ConfigError

from .conftest import TWO_ARMS

OUT = Path("out")


def plan(config: dict[str, Any], *settings: str) -> list[Any]:
    return AblationConfig.model_validate(config).plan(
        [parse_setting(each) for each in settings], OUT, source="mine.yaml"
    )


def shipped(name: str) -> AblationConfig:
    return load_config(AblationConfig, [recipes("ablations")[name]])


def test_the_papers_ablations_are_shipped() -> None:
    assert set(recipes("ablations")) == {"algorithm", "sft", "reward", "difficulty", "data", "stages", "mask"}


@pytest.mark.parametrize("name", sorted(recipes("ablations")))
def test_every_shipped_ablation_plans_its_arms_by_three_seeds(name: str) -> None:
    config = shipped(name)
    runs = config.plan([], OUT, source=name)
    assert [(run.arm, run.seed) for run in runs] == [(arm.name, seed) for seed in (0, 1, 2) for arm in config.arms]
    dumped = {run.arm: run.config.model_dump(mode="json") for run in runs[: len(config.arms)]}
    assert len({json.dumps(each) for each in dumped.values()}) == len(dumped), "arms must differ"
    for run in runs:
        assert run.config.run.seed == run.seed
        assert run.config.evaluation.temperatures == (0.0,) and not run.config.evaluation.baselines


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("algorithm", {"learner.advantage"}),
        ("mask", {"learner.mask_documents"}),
        ("stages", {"stages.0.reward", "stages.0.until"}),
        ("reward", {"stages.1.reward"}),
        ("difficulty", {"stages.0.split", "stages.1.split"}),
        ("data", {"stages.0.split", "stages.1.split"}),
    ],
)
def test_the_arms_of_a_shipped_ablation_differ_in_what_it_is_about_alone(name: str, keys: set[str]) -> None:
    config = shipped(name)
    first, *others = (
        run.config.model_dump(mode="json") for run in config.plan([], OUT, source=name)[: len(config.arms)]
    )
    for other in others:
        assert set(differing_keys(first, other)) == keys


def test_the_arm_of_imitation_learns_from_its_own_sampling() -> None:
    rl, sft = shipped("sft").plan([], OUT, source="sft")[:2]
    assert isinstance(rl.config, TrainConfig) and rl.sampling is None
    assert isinstance(sft.config, SFTConfig) and sft.sampling.run.seed == sft.config.run.seed == 0
    assert sft.config.sft.trajectories == "out/sft/seed0-trajectories" and sft.sampling.env == sft.config.env


def test_settings_go_to_the_arms_that_know_them_and_an_arms_own_win() -> None:
    left, right = plan(TWO_ARMS, "learner.lr=2e-4", "learner.group_size=8")[:2]
    assert left.config.learner.lr == 1e-3 and right.config.learner.lr == 2e-4
    assert left.config.learner.group_size == right.config.learner.group_size == 8
    given = [parse_setting(each) for each in ("sampling.questions=7", "stages.0.until=null", "learner.lr=2e-4")]
    rl, sft = shipped("sft").plan(given, OUT, source="sft")[:2]
    assert sft.sampling.sampling.questions == 7
    assert rl.config.stages[0].until is None and rl.config.learner.lr == sft.config.learner.lr == 2e-4


def test_subsets_make_the_data_that_all_arms_share() -> None:
    subset, whole = plan(
        {
            **TWO_ARMS,
            "subsets": {"short": {"hops": [1]}},
            "arms": [{"name": "left", "overrides": {"stages.0.split": "short"}}, {"name": "right"}],
        }
    )[:2]
    assert subset.config.env == whole.config.env
    assert (subset.config.env.id, subset.config.env.data) == ("SearchQA-Custom-v0", "out/data")
    assert subset.config.stages[0].split == "short" and whole.config.stages[0].split is None


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"learner.advantag": "grpo"},
            r"mine\.yaml: arm left: learner\.advantag: unknown key\. Did you mean 'learner\.adv",
        ),
        ({"learner.lr": "fast"}, r"mine\.yaml: arm left: learner\.lr: .* number"),
        ({"stages.7.reward": "stage2"}, r"mine\.yaml: arm left: stages has items 0 to 1, not 7"),
    ],
)
def test_a_wrong_key_or_value_of_an_arm_is_told_with_arm_and_key(overrides: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan({**TWO_ARMS, "arms": [{"name": "left", "overrides": overrides}, {"name": "right"}]})


def test_a_setting_that_no_recipe_knows_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"learner\.rate"):
        plan(TWO_ARMS, "learner.rate=1")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arms": [{"name": "left"}]}, "at least 2"),
        ({"arms": [{"name": "left"}, {"name": "left"}]}, "must differ"),
        ({"arms": [{"name": "left"}, {"name": "middle"}]}, "about right, but the arms are left, middle"),
        ({"arms": [{"name": "left", "override": {}}, {"name": "right"}]}, "unknown key"),
        ({"arms": [{"name": "left"}, {"name": "right", "verb": "sft"}]}, "needs base"),
        ({"arms": [{"name": "left"}, {"name": "right", "sample": "fictional-wiki"}]}, "write verb: sft"),
        ({"arms": [{"name": "left"}, {"name": "../right"}]}, "should match pattern"),
        ({"claims": [{"metric": "f2", "higher": "left", "lower": "right"}]}, "'f1'"),
        ({"subsets": {"train": {"hops": [1]}}}, "a subset cannot be called train"),
        ({"title": None}, "title"),
    ],
)
def test_a_wrong_file_is_told_with_its_name(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(json.dumps({**TWO_ARMS, **change}))
    with pytest.raises(ConfigError, match=message) as told:
        load_config(AblationConfig, [file])
    assert str(file) in str(told.value)


def test_a_key_that_is_missing_is_told(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(json.dumps({key: value for key, value in TWO_ARMS.items() if key != "arms"}))
    with pytest.raises(ConfigError, match="arms: the key is missing"):
        load_config(AblationConfig, [file])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ablation"], "NAME is a file, or one of algorithm, data,"),
        (["ablation", "rewards"], "Did you mean 'reward'"),
        (["ablation", "reward", "--seed", "1"], "seeds are --seeds 0 1 2"),
        (["ablation", "reward", "--methods", "[oracle]"], "--methods: not for an ablation"),
        (["ablation", "reward", "--config", "fictional-wiki"], "write which ablation"),
        (["ablation", "reward", "--seeds", "1", "1"], "must differ"),
        (["ablation", "reward", "--learner.lrr", "1"], "lrr: unknown key"),
        (["methods", "reward"], "are for `search-env bench ablation`"),
    ],
)
def test_a_wrong_command_trains_nothing(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", *arguments, "--out", str(tmp_path / "out")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()

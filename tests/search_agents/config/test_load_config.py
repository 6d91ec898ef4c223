"""Configs: precedence, overrides, and one clear message for whatever is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError
from search_agents.cli.arguments import retriever_spec
from search_agents.config import (
    EvalConfig,
    SampleConfig,
    SFTConfig,
    TrainConfig,
    differing_keys,
    find_recipe,
    load_config,
    parse_flags,
    parse_setting,
    recipes,
)
from search_agents.config.load import dotted_keys, read_yaml
from search_agents.config.recipes import find_prompt, read_retriever

from search_env.errors import ConfigError
from search_env.retrieval import retriever_names, retriever_settings


def write(folder: Path, text: str, name: str = "mine.yaml") -> Path:
    file = folder / name
    file.write_text(text, encoding="utf-8")
    return file


def test_flags_win_over_files_and_later_files_over_earlier_ones(tmp_path: Path) -> None:
    first = write(tmp_path, "learner: {lr: 1e-4, group_size: 8}\nrun: {seed: 3}\n", "first.yaml")
    second = write(tmp_path, "learner: {lr: 2e-4}\n", "second.yaml")
    config = load_config(TrainConfig, [first, second], parse_flags(["--run.seed", "9"]))
    assert (config.learner.lr, config.learner.group_size, config.run.seed) == (2e-4, 8, 9)


def test_flags_are_dotted_kebab_with_space_or_equals(tmp_path: Path) -> None:
    overrides = [*parse_flags(["--learner.group-size", "6", "--learner.kl-coef=0.1"]), parse_setting("env.top_k=5")]
    config = load_config(TrainConfig, [], overrides)
    assert (config.learner.group_size, config.learner.kl_coef, config.env.top_k) == (6, 0.1, 5)


def test_an_item_of_a_list_is_set_by_its_index() -> None:
    config = load_config(
        TrainConfig,
        [],
        parse_flags(["--stages.0.max-steps", "3", "--stages.0.until", "null", "--stages.1.reward=stage2-em"]),
    )
    assert config.stages[0].max_steps == 3
    assert config.stages[0].until is None
    assert config.stages[1].reward == "stage2-em"


def test_a_section_that_is_null_comes_to_life_when_a_key_in_it_is_set() -> None:
    config = load_config(TrainConfig, [], parse_flags(["--stages.1.until.patience", "4"]))
    assert config.stages[1].until is not None
    assert config.stages[1].until.patience == 4


def test_text_that_looks_like_a_number_stays_text_where_text_is_wanted() -> None:
    config = load_config(TrainConfig, [], parse_flags(["--model.path", "007", "--env.data", "1e3"]))
    assert (config.model.path, config.env.data) == ("007", "1e3")


def test_a_config_survives_its_json_copy() -> None:
    config = load_config(TrainConfig, [], parse_flags(["--evaluation.temperatures", "[1, 0]"]))
    assert TrainConfig.model_validate(config.model_dump(mode="json")) == config


def test_a_config_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        TrainConfig().run.seed = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("learner: {lrr: 1}", ["mine.yaml: learner.lrr: unknown key. Did you mean 'learner.lr'?", "prompts_per_batch"]),
        ("learnr: {lr: 1e-4}", ["mine.yaml: learnr: unknown key. Did you mean 'learner'?"]),
        ("rollout: {lr: 1}", ["rollout.lr: unknown key. Did you mean 'learner.lr'?"]),
        ("evaluation: {size: 2}", ["evaluation.size: unknown key. Allowed keys in evaluation: split, "]),
        ("evaluation: {temperatures: 0}", ["evaluation.temperatures: input should be a list, for example '[0]'"]),
        ("seed: 1", ["mine.yaml: seed: unknown key. Did you mean 'run.seed'?", "Allowed keys in the config: env, "]),
        ("stages: [{name: a, reward: f1, max_step: 2}]", ["stages.0.max_step: unknown key. Did you mean 'stages.0.m"]),
        ("learner: {lr: fast}", ["mine.yaml: learner.lr: input should be a valid number", "given: 'fast'"]),
        ("learner: 3", ["mine.yaml: learner: "]),
        ("env: {top_k: 0}", ["mine.yaml: env.top_k: input should be greater than 0 (given: 0)"]),
        ("stages: []", ["mine.yaml: stages: "]),
        ("stages: [{name: a, reward: f1}]", ["mine.yaml: stages.0.max_steps: the key is missing."]),
        ("learner: {group_size: 1}", ["mine.yaml: learner: advantage reinforce++-baseline needs group_size >= 2"]),
        ("learner: {minibatch_size: 1000}", ["minibatch_size (1000) is more than the batch holds"]),
        ("rollout: {max_segment_tokens: 900}", ["max_segment_tokens (900) must be less than max_episode_tokens (768)"]),
        ("model: {dtype: bfloat16}", ["model.dtype is bfloat16", "--learner.autocast true", "--learner.lora"]),
        ("evaluation: {temperatures: [1, 1]}", ["temperatures must be different and not negative"]),
        ("stages: [{name: a, reward: f1, max_steps: 1}, {name: a, reward: f1, max_steps: 1}]", ["different names"]),
        ("run: {name: ../up}", ["mine.yaml: run.name: "]),
        ("- a\n- b", ["mine.yaml: holds a list; a config is a mapping"]),
        ("a: [1,\nb: 2", ["mine.yaml:2: is not YAML"]),
        ("run: {seed: 2026-13-01}", ["mine.yaml: is not YAML: a value cannot be read (month must be", "in quotes"]),
        ("run: {seed: !!int x}", ["mine.yaml: is not YAML: a value cannot be read (invalid literal"]),
        ("run: {seed: !!bool x}", ["mine.yaml: is not YAML: a value cannot be read ('x')"]),
        ("env: {retriever: {name: cached, off: bm25}}", ["mine.yaml: is not YAML: one of its keys means False; put"]),
        ("[" * 1500, ["mine.yaml: is not YAML: it is nested too deeply"]),
    ],
)  # fmt: skip
def test_a_wrong_file_is_told_with_file_key_and_what_is_allowed(tmp_path: Path, text: str, expected: list[str]) -> None:
    file = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config(TrainConfig, [file])
    for part in expected:
        assert part in str(caught.value)


@pytest.mark.parametrize("schema", [TrainConfig, SFTConfig])
def test_weights_in_bfloat16_are_only_trained_by_adapters(schema: type[TrainConfig | SFTConfig]) -> None:
    with pytest.raises(ValidationError, match=r"model\.dtype is bfloat16"):
        schema.model_validate({"model": {"dtype": "bfloat16"}})
    adapted = schema.model_validate({"model": {"dtype": "bfloat16"}, "learner": {"lora": {"rank": 4}}})
    assert adapted.model.dtype == "bfloat16"


def test_anchors_that_stand_for_a_billion_places_or_for_themselves_are_read_at_once(tmp_path: Path) -> None:
    lines = ["l0: &l0 [x]", *(f"l{n}: &l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 10)), "a: &a [*a]"]
    assert set(read_yaml(write(tmp_path, "\n".join(lines)))) == {*(f"l{n}" for n in range(10)), "a"}


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    file = write(tmp_path, "learner: {lr: fast, foo: 1}\nbar: 2\n")
    with pytest.raises(ConfigError) as caught:
        load_config(TrainConfig, [file])
    assert [line.split(": ")[1] for line in str(caught.value).splitlines()] == ["learner.lr", "learner.foo", "bar"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--learner.rl", "1"], "--learner.rl: learner.rl: unknown key. Did you mean 'learner.lr'?"),
        (["--learner.lr", "x"], "--learner.lr: learner.lr: input should be a valid number"),
        (["--stages.7.max-steps", "1"], "--stages.7.max-steps: stages has items 0 to 1, not 7."),
        (["--stages.first.max-steps", "1"], "stages has items 0 to 1, not 'first'."),
        (["--env.retriever", "{name: [bm25}"], "--env.retriever: {name: [bm25} cannot be read as YAML: expected"),
        (["--env.retriever", "{off: bm25}"], "{off: bm25} cannot be read as YAML: one of its keys means False; put"),
        (["--learner.lr.x", "1"], "--learner.lr.x: learner.lr is a value, it has no keys of its own."),
    ],
)
def test_a_wrong_flag_is_told_as_it_was_written(flags: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(TrainConfig, [], parse_flags(flags))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "arguments", [["--seeed", "1"], ["stray"], ["--learner.lr"], ["--learner.lr", "--run.seed", "1"]]
)
def test_arguments_that_are_no_settings_are_refused(arguments: list[str]) -> None:
    with pytest.raises(ConfigError):
        parse_flags(arguments)


@pytest.mark.parametrize("text", ["learner.lr", "=3", "a b=3"])
def test_set_wants_key_and_value(text: str) -> None:
    with pytest.raises(ConfigError, match="KEY=VALUE"):
        parse_setting(text)


def test_a_negative_value_may_follow_a_flag() -> None:
    assert parse_flags(["--learner.lr", "-1"])[0].value == "-1"


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read"):
        load_config(TrainConfig, [tmp_path / "nowhere.yaml"])


def test_differing_keys_names_every_leaf_that_differs() -> None:
    one = load_config(TrainConfig, []).model_dump(mode="json")
    other = load_config(TrainConfig, [], parse_flags(["--run.seed", "1", "--stages.1.max-steps", "2"])).model_dump(
        mode="json"
    )
    assert differing_keys(one, other) == ["run.seed", "stages.1.max_steps"]
    assert differing_keys(one, one) == []


def test_every_setting_has_help_and_a_kebab_flag_that_sets_it() -> None:
    for schema in (TrainConfig, SampleConfig, SFTConfig, EvalConfig):
        for key, field in dotted_keys(schema):
            assert field.description, key


def test_every_shipped_recipe_is_valid_and_its_header_tells_command_hardware_and_time() -> None:
    schemas = {"train": TrainConfig, "sample": SampleConfig, "sft": SFTConfig, "eval": EvalConfig}
    shipped = [(schema, file) for verb, schema in schemas.items() for file in recipes(verb).values()]
    assert {file.stem for _, file in shipped} >= {"fictional-wiki", "smollm2-135m-hotpotqa"}
    for schema, file in shipped:
        load_config(schema, [file])
        header = file.read_text(encoding="utf-8").split("\n\n")[0]
        assert all(line.startswith("#") for line in header.splitlines()), file
        for part in ("search-env ", "Hardware:", "Time:", "Expect"):
            assert part in header, (file, part)


@pytest.mark.parametrize("name", sorted(recipes("algorithms")))
def test_every_shipped_algorithm_lies_over_a_recipe_and_changes_the_learner_only(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    files = [find_recipe(given, "train") for given in ("fictional-wiki", f"algorithms/{name}")]
    plain, made = (load_config(TrainConfig, files[:number]).model_dump(mode="json") for number in (1, 2))
    changed = differing_keys(plain, made)
    assert changed and all(key.startswith("learner.") for key in changed)
    assert f"--config algorithms/{name}\n" in files[1].read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "given", ["fictional-wiki", "fictional-wiki.yaml", "train/fictional-wiki.yaml", "configs/train/fictional-wiki.yaml"]
)
def test_a_recipe_is_found_by_name_from_any_folder(given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_recipe(given, "train") == recipes("train")["fictional-wiki"]


def test_a_file_of_the_users_wins_over_a_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "run: {seed: 5}", "fictional-wiki.yaml")
    assert find_recipe("fictional-wiki.yaml", "train") == Path("fictional-wiki.yaml")


def test_a_shipped_prompt_is_found_by_name_and_holds_the_question(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("two-examples", "two-examples.txt", "two-hops"):
        assert "{question}" in Path(find_prompt(name)).read_text(encoding="utf-8")
    for given in ("bare", "nowhere", "mine/two-examples.txt"):
        assert find_prompt(given) == given
    write(tmp_path, "Mine: {question}", "two-examples")
    assert find_prompt("two-examples") == "two-examples"


def test_every_shipped_retriever_spec_is_valid_and_found_by_its_path_and_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    specs = recipes("retrieval")
    assert "bamboogle-online" in specs
    monkeypatch.chdir(tmp_path)  # as where the package is installed
    for name, file in specs.items():
        held = yaml.safe_load(file.read_text())
        assert held["name"] in retriever_names()
        retriever_settings(held)
        for given in (str(file), f"{name}.yaml", f"configs/retrieval/{name}.yaml"):
            assert read_retriever(given) == retriever_spec(given) == held


def test_a_config_takes_a_retriever_from_a_file_and_keeps_what_it_held(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("name: http\nurl: http://127.0.0.1:8000/retrieve\n")
    held = {"name": "http", "url": "http://127.0.0.1:8000/retrieve"}
    flag = load_config(EvalConfig, (), parse_flags(["--env.retriever", str(file)]))
    (tmp_path / "recipe.yaml").write_text(f"env: {{retriever: {file}}}")
    assert flag.env.retriever == load_config(EvalConfig, [tmp_path / "recipe.yaml"]).env.retriever == held
    assert EvalConfig.model_validate(flag.model_dump(mode="json")) == flag


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: bm25\nindex: [a\n", r"mine\.yaml:3: is not YAML"),
        ("- bm25\n", r"mine\.yaml: holds a list"),
        ("", r"mine\.yaml: a retriever is a name or a mapping with the key 'name'"),
        ("name: htpp\n", r"mine\.yaml: unknown retriever 'htpp'. Did you mean 'http'"),
        ("name: http\nadress: x\n", r"mine\.yaml: retriever 'http': adress: .*Its settings: url"),
    ],
)
def test_a_file_that_holds_no_retriever_is_named_with_line_or_key(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    for read in (read_retriever, lambda given: load_config(EvalConfig, (), parse_flags(["--env.retriever", given]))):
        with pytest.raises(ConfigError, match=message):
            read(str(file))


def test_a_retriever_file_that_is_not_there_is_told_with_those_that_are_shipped() -> None:
    with pytest.raises(ConfigError, match=r"no config file at 'mine.yaml'.*Known: .*bamboogle-online"):
        retriever_spec("mine.yaml")


@pytest.mark.parametrize("given", ["fictional-wikki", "else/where/fictional-wiki.yaml"])
def test_an_unknown_recipe_is_told_with_those_that_exist(given: str) -> None:
    with pytest.raises(ConfigError, match=r"no config file at .*unknown train recipe .*smollm2-135m-hotpotqa"):
        find_recipe(given, "train")


def test_a_model_runs_in_one_place_by_one_engine() -> None:
    vllm = parse_flags(["--model.engine", "vllm"])
    assert load_config(EvalConfig, overrides=vllm).model.vllm.kv_cache_gb == 2.0
    with pytest.raises(ConfigError, match=r"remove model\.engine"):
        load_config(SFTConfig, overrides=vllm)
    server = parse_flags(["--model.server.url", "http://127.0.0.1:1/v1"])
    with pytest.raises(ConfigError, match="on a server or here"):
        load_config(EvalConfig, overrides=[*vllm, *server])

"""What a user may call a model, and the protocol that is stored with it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from search_agents.config import EvalConfig, TrainConfig, find_recipe, load_config, parse_flags
from search_agents.config.sections import ModelSection
from search_agents.models import SHIPPED, find_model, read_protocol, write_protocol

from search_env.errors import ModelError


def make_run(path: Path, *steps: int, model: bool = False) -> Path:
    path.mkdir()
    (path / "meta.json").write_text("{}")
    for step in steps:
        folder = path / "checkpoints" / f"step_{step:06d}"
        folder.mkdir(parents=True)
        (folder / "COMPLETE").write_text("")
    if model:
        (path / "model").mkdir()
    return path


def test_a_hub_id_is_left_as_it_is() -> None:
    assert find_model("HuggingFaceTB/SmolLM2-135M-Instruct") == "HuggingFaceTB/SmolLM2-135M-Instruct"


def test_tiny_is_the_shipped_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SHIPPED, "tiny", tmp_path)
    assert find_model("tiny") == str(tmp_path)
    monkeypatch.setitem(SHIPPED, "tiny", tmp_path / "gone")
    with pytest.raises(ModelError, match="missing from this installation"):
        find_model("tiny")


def test_the_shipped_model_brings_the_protocol_of_its_recipe() -> None:
    protocol = load_config(EvalConfig, base=read_protocol(ModelSection())[0])
    recipe = load_config(TrainConfig, [find_recipe("fictional-wiki", "train")])
    assert protocol.env == recipe.env
    assert protocol.rollout.max_episode_tokens == recipe.rollout.max_episode_tokens


def test_a_run_stands_for_its_model_and_until_then_for_its_newest_checkpoint(tmp_path: Path) -> None:
    assert find_model(str(make_run(tmp_path / "done", 5, model=True))).endswith("done/model")
    assert find_model(str(make_run(tmp_path / "running", 5, 10))).endswith("checkpoints/step_000010")
    with pytest.raises(ModelError, match=r"no model yet.*search-env resume"):
        find_model(str(make_run(tmp_path / "new")))


@pytest.mark.parametrize("name", ["./nowhere", "/no/where", "~/nowhere", "a/b/c"])
def test_a_path_that_leads_nowhere_is_told(name: str) -> None:
    with pytest.raises(ModelError, match=r"no model folder at .*tiny"):
        find_model(name)


def test_a_protocol_is_read_as_it_was_written(tmp_path: Path) -> None:
    flags = ["--env.top-k", "7", "--env.prompt", "bare", "--rollout.max-segment-tokens", "50"]
    flags += ["--evaluation.split", "dev"]
    config = load_config(TrainConfig, [], parse_flags(flags))
    write_protocol(tmp_path, config)
    read = load_config(EvalConfig, base=read_protocol(ModelSection(path=str(tmp_path)))[0])
    assert read.env == config.env
    assert read.rollout == config.rollout
    assert read.evaluation.split == "dev"


def test_a_model_without_a_stored_protocol_gets_prompts_that_explain_it(tmp_path: Path) -> None:
    assert read_protocol(ModelSection(path=str(tmp_path)))[0]["env"]["prompt"] == "base"
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "x"}))
    assert read_protocol(ModelSection(path=str(tmp_path)))[0]["env"]["prompt"] == "instruct"
    assert read_protocol(ModelSection(path="org/name"))[0]["env"]["prompt"] == "instruct"
    load_config(EvalConfig, base=read_protocol(ModelSection(path=str(tmp_path)))[0])


def test_a_broken_protocol_is_told_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "search_env.json").write_text("{")
    with pytest.raises(ModelError, match=r"search_env\.json: is not JSON"):
        read_protocol(ModelSection(path=str(tmp_path)))[0]

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from search_agents.engines.base import SamplingParams
from search_agents.engines.pretrained import find_device, load_pretrained
from search_agents.engines.transformers import TransformersEngine

from search_env.errors import ConfigError, ModelError


@pytest.fixture
def folder(tokenizer: Any, make_model: Callable[..., Any], tmp_path: Path) -> Path:
    make_model().save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    return tmp_path


def test_a_saved_model_speaks_as_before(folder: Path, tokenizer: Any, make_model: Callable[..., Any]) -> None:
    params = SamplingParams(temperature=0.0, max_tokens=8)
    expected = TransformersEngine(make_model(), tokenizer).open([[5, 6]], seeds=[0], max_tokens=20).sample([0], params)
    loaded = TransformersEngine.from_pretrained(folder)
    assert loaded.open([[5, 6]], seeds=[0], max_tokens=20).sample([0], params) == expected


@pytest.mark.parametrize(("dtype", "expected"), [("auto", torch.float32), ("bfloat16", torch.bfloat16)])
def test_weights_have_the_dtype_asked_for(folder: Path, dtype: str, expected: torch.dtype) -> None:
    model, _ = load_pretrained(str(folder), dtype=dtype)
    assert model.dtype == expected and not model.training


@pytest.mark.parametrize(
    ("missing", "named"),
    [("config.json", "config.json"), ("model.safetensors", "safetensors"), ("tokenizer.json", "tokenizer")],
)
def test_a_missing_file_is_named_with_what_is_there(folder: Path, missing: str, named: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(ModelError, match=f"lacks .*{named}.*it holds .*save_pretrained"):
        load_pretrained(folder)


def test_a_broken_config_is_one_message(folder: Path) -> None:
    (folder / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot load the model"):
        load_pretrained(folder)


def test_broken_weights_are_one_message(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ModelError, match="cannot load the model"):
        load_pretrained(folder)


def test_pickled_weights_are_not_read(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors"):
        load_pretrained(folder)


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere-at-all"])
def test_a_folder_that_does_not_exist_is_said_to(name: str) -> None:
    with pytest.raises(ModelError, match="no model folder"):
        load_pretrained(name)


def test_a_hub_id_that_cannot_be_reached_says_what_to_give(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> None:
        raise OSError("We couldn't connect to the hub.\nMore lines.")

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", offline)
    with pytest.raises(ModelError, match=r"'org/name': We couldn't connect to the hub\. Give a folder"):
        load_pretrained("org/name")


def test_an_unknown_dtype_names_the_known_ones(folder: Path) -> None:
    with pytest.raises(ModelError, match="Did you mean 'bfloat16'"):
        load_pretrained(folder, dtype="bfloat")


@pytest.mark.parametrize(("found", "devices"), [(True, ["cuda", "cpu", "cuda"]), (False, ["cpu", "cpu"])])
def test_a_gpu_is_taken_if_there_is_one(monkeypatch: pytest.MonkeyPatch, found: bool, devices: list[str]) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: found)
    assert [find_device(name) for name in ("auto", "cpu", "cuda")[: len(devices)]] == devices
    if not found:
        with pytest.raises(ConfigError, match="finds no GPU"):
            find_device("cuda")

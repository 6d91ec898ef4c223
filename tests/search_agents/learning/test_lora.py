"""LoRA end to end: adapters alone are trained, stored and sent, and a run's model is used like any other."""

from __future__ import annotations

import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from safetensors.torch import load_file
from search_agents.engines.pretrained import load_pretrained
from search_agents.engines.transformers import TransformersEngine
from search_agents.learning import ReinforcePP, env_runner
from search_agents.learning.build import evaluation_engine
from search_agents.learning.checkpoint import load_checkpoint, save_checkpoint
from search_agents.rollout import Task

from search_env.errors import MissingDependencyError, ModelError

Build = Callable[..., ReinforcePP]
IDS = torch.arange(3, 40)[None]


@pytest.fixture
def build(make_config: Callable[..., Any], start: Callable[[Any], Any]) -> Build:
    pytest.importorskip("peft")
    return lambda **training: start(make_config(**{"lora": {"rank": 4, "alpha": 8.0}, "lr": 1e-2} | training))


def module(algo: ReinforcePP) -> Any:
    return algo.learner_group._learner.module[DEFAULT_MODULE_ID]


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    found: torch.Tensor = model(input_ids=IDS).logits
    return found


def test_only_adapters_are_trained_and_the_base_is_the_reference(build: Build, policy_folder: Path) -> None:
    algo = build(kl_coef=0.05)
    base, _ = load_pretrained(policy_folder)
    torch.testing.assert_close(logits(module(algo).model), logits(base), rtol=0, atol=1e-6)
    assert module(algo)._reference is None, "no second copy of the weights"
    first = algo.train()["learners"][DEFAULT_MODULE_ID]
    assert first["reference_kl"] == pytest.approx(0.0, abs=1e-4) and first["grad_norm"] > 0
    assert abs(algo.train()["learners"][DEFAULT_MODULE_ID]["reference_kl"]) > 1e-4
    trained = dict(module(algo).model.named_parameters())
    for name, weight in base.named_parameters():
        ours = trained.get(name, trained.get(name.replace(".weight", ".base_layer.weight")))
        assert ours is not None and torch.equal(ours, weight), name
    assert {name for name, param in trained.items() if param.requires_grad} == set(module(algo).get_state())
    assert all(".lora_" in name for name in module(algo).get_state())
    assert (logits(module(algo).model) - logits(base)).abs().max() > 1e-3


def test_the_engine_samples_with_the_adapters(build: Build) -> None:
    algo = build(lr=1e-2, minibatch_size=12)
    algo.train()
    assert abs(algo.train()["learners"][DEFAULT_MODULE_ID]["kl"]) < 1e-5


def test_a_run_resumed_from_a_checkpoint_of_adapters_is_the_run_without_the_stop(build: Build, tmp_path: Path) -> None:
    straight, first, resumed = build(), build(), build()
    for _ in range(3):
        straight.train()
    first.train()
    folder = save_checkpoint(first, tmp_path / "step_000001")
    names = {path.name for path in folder.iterdir()}
    assert {"adapter_model.safetensors", "adapter_config.json", "optimizer.safetensors"} < names
    assert "model.safetensors" not in names
    assert all(".lora_" in name for name in load_file(folder / "optimizer.safetensors"))
    resumed.train()
    resumed.train()
    load_checkpoint(resumed, folder)
    resumed.train()
    resumed.train()
    for name, packed in module(straight).get_state().items():
        assert (module(resumed).get_state()[name].data == packed.data).all(), name
    assert [e.to_json() for e in resumed.episodes] == [e.to_json() for e in straight.episodes]


def test_a_saved_model_and_a_checkpoint_load_as_plain_models(build: Build, tmp_path: Path) -> None:
    algo = build()
    algo.train()
    expected = logits(module(algo).model)
    algo.save_model(tmp_path / "model")
    files = {path.name for path in (tmp_path / "model").iterdir()}
    assert "model.safetensors" in files and not [name for name in files if "adapter" in name]
    checkpoint = save_checkpoint(algo, tmp_path / "step_000001")
    for folder in (tmp_path / "model", checkpoint):
        model, _ = load_pretrained(folder)
        assert not [name for name, _ in model.named_parameters() if "lora" in name]
        torch.testing.assert_close(logits(model), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(logits(evaluation_engine(algo, tmp_path).model), expected)
    described = json.loads((checkpoint / "adapter_config.json").read_text())
    assert described["r"] == 4 and Path(described["base_model_name_or_path"]).is_absolute()
    with pytest.raises(ModelError, match=r"of another learner\.lora\.rank"):
        load_checkpoint(build(lora={"rank": 2, "alpha": 8.0}), checkpoint)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_an_engine_with_weights_of_its_own_is_given_those_that_are_saved(
    build: Build, tmp_path: Path, dtype: str
) -> None:
    algo = build(dtype=dtype, minibatch_size=3)
    algo.train()
    algo.save_model(tmp_path / "model")
    saved, _ = load_pretrained(tmp_path / "model")
    base, _ = load_pretrained(module(algo).model_config["model"], dtype=dtype)
    expected, before = dict(saved.named_parameters()), dict(base.named_parameters())
    given = dict(module(algo).plain_weights())
    assert given.keys() == expected.keys()
    for name, weight in given.items():
        assert weight.dtype == getattr(torch, dtype) and torch.equal(weight, expected[name]), name
    changed = {name for name, weight in given.items() if not torch.equal(weight, before[name])}
    assert changed == {name for name in given if name.endswith("_proj.weight")}


def test_weights_are_merged_one_at_a_time(build: Build) -> None:
    algo = build()
    own = {id(param) for param in module(algo).model.parameters()}
    alive: list[weakref.ref[torch.Tensor]] = []
    most = 0
    for _, weight in module(algo).plain_weights():
        alive = [each for each in alive if each() is not None] + [weakref.ref(weight)] * (id(weight) not in own)
        most = max(most, len(alive))
        del weight
    assert most == 1


class Noting(TransformersEngine):
    """In the place of vLLM's: keeps the weights that it is given."""

    def update_weights(self, named_tensors: Any) -> None:
        self.given = {name: tensor.detach().clone() for name, tensor in named_tensors}


def test_a_runner_gives_its_engine_merged_weights(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(env_runner, "VLLMEngine", Noting)
    algo = build()
    algo.train()
    runner = algo.env_runner_group.local_env_runner
    runner.engine = Noting(runner.module.model, runner.module.tokenizer)
    runner.sample(tasks=[Task(0, 0, seed=0)])
    expected = dict(module(algo).plain_weights())
    assert runner.engine.given.keys() == expected.keys()
    assert all(torch.equal(weight, expected[name]) for name, weight in runner.engine.given.items())


def test_weights_that_are_sent_to_a_runner_are_the_adapters(build: Build) -> None:
    learner, runner = build(), build(lr=1e-9)
    learner.train()
    state = module(learner).get_state()
    sent = sum(packed.data.nbytes for packed in state.values())
    assert sent < sum(param.nbytes for param in module(learner).model.parameters()) / 2
    module(runner).set_state(state)
    assert torch.equal(logits(module(runner).model), logits(module(learner).model))


def test_without_peft_the_command_that_installs_it_is_told(
    make_config: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'search-env\[lora\]'"):
        make_config(lora={"rank": 4, "alpha": 8.0}).build_learner()

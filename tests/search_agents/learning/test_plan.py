"""What a run needs: held against what is really allocated, and told in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from search_agents.cli.command import main
from search_agents.config import TrainConfig, find_recipe, load_config
from search_agents.learning.learner_group import Row, build_batches
from search_agents.learning.memory import ModelShape, cache_bytes_per_token, learner_memory
from search_agents.learning.plan import Plan, make_plan
from search_agents.models import find_model
from torch.autograd.graph import saved_tensors_hooks

SEVEN_BILLION = {
    "model_type": "qwen2",
    "architectures": ["Qwen2ForCausalLM"],
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "vocab_size": 152064,
    "tie_word_embeddings": False,
}


@pytest.fixture
def seven_billion(tmp_path: Path) -> str:
    (tmp_path / "config.json").write_text(json.dumps(SEVEN_BILLION))
    return str(tmp_path)


def recipe(**sections: Any) -> TrainConfig:
    return TrainConfig.model_validate(sections)


def test_a_shape_is_that_of_the_model_without_its_weights(seven_billion: str) -> None:
    shape = ModelShape.of(seven_billion)
    assert shape.parameters == 7_615_616_512  # as its model card has it
    assert (shape.layers, shape.query, shape.key_value) == (28, 3584, 512)
    assert shape.outside == 2 * 152064 * 3584 + 3584


@pytest.mark.parametrize(
    ("dtype", "lora", "autocast"),
    [
        ("float32", None, False),
        ("float32", {"rank": 8, "alpha": 8.0}, False),
        ("bfloat16", {"rank": 8, "alpha": 8.0}, False),
        ("bfloat16", {"rank": 8, "alpha": 8.0}, True),
    ],
)
def test_what_a_learner_keeps_is_what_the_plan_says(
    make_config: Callable[..., Any], dtype: str, lora: dict[str, Any] | None, autocast: bool
) -> None:
    """Weights, gradients and moments to the byte; what the backward pass remembers within a third."""
    rng = np.random.default_rng(0)
    rows = [
        Row(
            input_ids=rng.integers(3, 250, 400),
            action_mask=np.arange(400) % 100 == 99,  # few: their logits are another entry
            logprobs=np.zeros(400, dtype=np.float32),
            advantages=np.ones(400, dtype=np.float32),
        )
        for _ in range(2)
    ]
    if lora:
        pytest.importorskip("peft")
    learning = {"micro_batch_tokens": 800, "lora": lora, "autocast": autocast}
    learner = make_config(model=find_model("tiny"), dtype=dtype, **learning).build_learner()
    model = learner.module[DEFAULT_MODULE_ID].model
    weights = {parameter.data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    (batch,) = build_batches(rows, minibatch_size=2, num_shares=1)
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        learner.update(batch=batch)
    config = recipe(model={"dtype": dtype}, learner=learning, rollout={"max_episode_tokens": 400})
    plan = learner_memory(ModelShape.of(find_model("tiny")), config.model, config.learner, reference=False, longest=400)
    moments = sum(
        value.nbytes
        for state in learner._named_optimizers.values()
        for entry in state.state.values()
        for value in entry.values()
        if value.ndim
    )
    trained = sum(parameter.nbytes for parameter in model.parameters() if parameter.requires_grad)
    frozen = sum(parameter.nbytes for parameter in model.parameters() if not parameter.requires_grad)
    assert (plan["weights"], plan["gradients"]) == ((frozen, trained) if lora else (trained, trained))
    assert plan["moments"] == moments
    assert sum(kept.values()) == pytest.approx(plan["activations"], rel=1 / 3)


def test_sharding_divides_what_grows_with_the_model(seven_billion: str) -> None:
    shape = ModelShape.of(seven_billion)
    learner = {"num_learners": 4, "autocast": True}
    whole, shared = (
        learner_memory(shape, config.model, config.learner, reference=True, longest=1024)
        for config in (recipe(learner=learner), recipe(learner={**learner, "sharded": True}))
    )
    for name in ("weights", "gradients", "moments", "reference"):
        assert shared[name] * 4 == pytest.approx(whole[name], rel=1e-6)
    lean = recipe(learner={**learner, "gradient_checkpointing": True})
    kept = learner_memory(shape, lean.model, lean.learner, reference=True, longest=1024)["activations"]
    assert 1 / 28 < kept / whole["activations"] < 1 / 4
    assert whole["weights"] == shape.parameters * 4 and "gathered" in shared and "gathered" not in whole


def test_a_plan_says_who_needs_what_and_what_to_change(seven_billion: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = [
        *("plan", "--model", seven_billion, "--gpus", "8", "--learner.autocast", "true"),
        *("--learner.gradient-checkpointing", "true", "--rollout.num-env-runners", "3"),
        *("--rollout.num-gpus-per-env-runner", "1", "--model.engine", "vllm", "--model.vllm.dtype", "bfloat16"),
        *("--model.vllm.kv-cache-gb", "40", "--rollout.max-episode-tokens", "8192", "--evaluation.batch-size", "100"),
    ]
    assert main([*given, "--learner.num-learners", "4", "--learner.sharded", "true"]) == 0
    said = capsys.readouterr().out
    assert "4 x learner, 1 GPU each" in said and "3 x runner, 1 GPU each" in said and "It fits." in said
    assert "1 x driver, 1 GPU each" in said
    assert main(given) == 2
    said = capsys.readouterr().out
    assert "a learner needs" in said and "learner.sharded" in said
    assert main([*given, "--learner.num-learners", "6", "--learner.sharded", "true"]) == 2
    assert "9 GPUs are used and 8 are there" in capsys.readouterr().out
    assert main(["plan", "--model", "/nowhere/at/all"]) == 2


def test_an_engine_on_several_gpus_divides_weights_and_heads_among_them(seven_billion: str) -> None:
    def planned(size: int) -> Plan:
        spread = {"engine": "vllm", "vllm": {"dtype": "bfloat16", "kv_cache_gb": 8, "tensor_parallel_size": size}}
        config = recipe(model=spread, rollout={"num_env_runners": 2, "max_episode_tokens": 4096})
        return make_plan(config, seven_billion, gpus=16, memory=80e9)

    plans = {size: planned(size) for size in (1, 2, 4, 7)}
    runners = {size: plan.roles[1] for size, plan in plans.items()}
    whole = runners[1].memory["weights"]
    assert [whole // runners[size].memory["weights"] for size in (2, 4)] == [2, 4]
    assert [plans[size].episodes // plans[1].episodes for size in (2, 4)] == [2, 4], "4 heads of keys and values"
    assert plans[7].episodes == plans[4].episodes, "a GPU has a whole head"
    assert [runner.gpus for runner in runners.values()] == [0, 2, 4, 7]
    assert "2 x runner, 4 GPUs each" in plans[4].text() and "on each of them" in plans[4].text()
    assert any("tensor_parallel_size 8 does not divide the 28 attention heads" in each for each in planned(8).problems)


def test_an_engine_in_the_learners_process_shares_its_weights() -> None:
    config = recipe(rollout={"num_envs": 8, "max_episode_tokens": 512})
    plan = make_plan(config, find_model("tiny"), gpus=1, memory=80e9)
    (role,) = plan.roles
    shape = ModelShape.of(find_model("tiny"))
    assert role.memory["engine's key-value cache"] == 8 * 512 * cache_bytes_per_token(shape, config.model)
    assert "engine's weights" not in role.memory and plan.episodes == 8 and not plan.problems


def test_the_driver_evaluates_a_copy_that_the_plan_counts(seven_billion: str) -> None:
    def planned(*, gpus: int, **evaluation: Any) -> Plan:
        learner = {"num_learners": 4, "sharded": True, "autocast": True, "gradient_checkpointing": True}
        config = recipe(learner=learner, evaluation=evaluation, rollout={"max_episode_tokens": 4096})
        return make_plan(config, seven_billion, gpus=gpus, memory=80e9)

    alone = planned(gpus=5, batch_size=100)
    shape, driver = alone.shape, alone.roles[-1]
    assert driver.memory["weights to evaluate"] == 2 * shape.parameters, "in the format that learners compute in"
    assert driver.memory["key-value cache"] == 100 * 4096 * 2 * 28 * 512 * 2
    assert (driver.name, driver.gpus, driver.beside, alone.problems) == ("driver", 1, False, [])
    baselines = planned(gpus=5, batch_size=1).roles[-1].memory["key-value cache"]
    assert (
        baselines
        > 65_536 * 2 * 28 * 512 * 2
        > planned(gpus=5, batch_size=1, baselines=False).roles[-1].memory["key-value cache"]
    )
    crowded = planned(gpus=4, batch_size=100)
    assert crowded.roles[-1].limit == pytest.approx(72e9 - crowded.roles[0].needed)
    assert "1 x driver, beside others on their GPU" in crowded.text()
    assert any("a driver needs" in each and "a GPU of its own" in each for each in crowded.problems)
    assert planned(gpus=4, batch_size=8).problems == [], "small enough beside a learner"
    assert planned(gpus=0).roles[-1].gpus == 0


@pytest.mark.parametrize(
    ("given", "sizes", "gpus"),
    [
        (["r1-searcher-qwen-7b"], {}, 8),
        (
            ["r1-searcher-llama-8b"],
            {
                **{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 4096},
                **{"intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32},
                **{"num_key_value_heads": 8, "vocab_size": 128256},
            },
            8,
        ),
        (
            ["r1-searcher-qwen-7b", "cluster/32b-32-gpus"],
            {
                **{"hidden_size": 5120, "intermediate_size": 27648, "num_hidden_layers": 64},
                **{"num_attention_heads": 40, "num_key_value_heads": 8},
            },
            32,
        ),
    ],
)
def test_the_recipes_for_clusters_fit_the_gpus_that_they_name(
    tmp_path: Path, given: list[str], sizes: dict[str, Any], gpus: int
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(SEVEN_BILLION | sizes))
    config = load_config(TrainConfig, [find_recipe(name, "train") for name in given])
    plan = make_plan(config, str(tmp_path), gpus=gpus, memory=80e9)
    assert not plan.problems and sum(role.processes * role.gpus for role in plan.roles) == gpus
    assert not plan.roles[-1].beside, "the driver has a GPU of its own"

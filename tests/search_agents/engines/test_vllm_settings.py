"""What vLLM is asked for on which machine, read off a stand-in for it."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from search_agents.engines.vllm import VLLMEngine
from search_agents.models import SHIPPED


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The settings that an engine gives; `on_cpu` among them decides what the stand-in runs on."""
    seen: dict[str, Any] = {"on_cpu": True}

    def from_engine_args(given: dict[str, Any]) -> Any:
        seen.update(given)
        model = SimpleNamespace(dtype=torch.float32, max_model_len=2048, get_vocab_size=lambda: 2141)
        return SimpleNamespace(model_config=model)

    modules: dict[str, dict[str, Any]] = {
        "vllm": {
            "EngineArgs": dict,
            "LLMEngine": SimpleNamespace(from_engine_args=from_engine_args),
            "SamplingParams": dict,
        },
        "vllm.platforms": {"current_platform": SimpleNamespace(is_cpu=lambda: seen["on_cpu"])},
        "vllm.v1.engine.core": {},
        "vllm.inputs": {"tokens_input": list},
        "vllm.sampling_params": {"RequestOutputKind": SimpleNamespace(DELTA=1)},
    }
    for name, attributes in modules.items():
        module = ModuleType(name)
        vars(module).update(attributes)
        monkeypatch.setitem(sys.modules, name, module)
    return seen


def test_nothing_is_compiled_on_cpu(asked: dict[str, Any]) -> None:
    VLLMEngine(SHIPPED["tiny"])
    assert asked["enforce_eager"] is True


def test_a_gpu_is_left_to_the_defaults_of_vllm_with_its_cuda_graphs(asked: dict[str, Any]) -> None:
    asked["on_cpu"] = False
    VLLMEngine(SHIPPED["tiny"])
    assert "enforce_eager" not in asked


@pytest.mark.parametrize("on_cpu", [True, False])
def test_steps_are_waited_for_and_prefixes_kept_on_every_machine(asked: dict[str, Any], on_cpu: bool) -> None:
    asked["on_cpu"] = on_cpu
    VLLMEngine(SHIPPED["tiny"], kv_cache_gb=0.5)
    assert asked["async_scheduling"] is False and asked["enable_prefix_caching"] is True
    assert asked["kv_cache_memory_bytes"] == 1 << 29 and asked["distributed_executor_backend"] is None

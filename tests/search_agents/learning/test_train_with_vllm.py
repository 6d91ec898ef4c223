"""Run by `make test-vllm`, in an environment of its own: see the Makefile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from search_agents.models import SHIPPED
from search_agents.rollout import Task

pytest.importorskip("vllm")


@pytest.mark.parametrize(("lora", "lr"), [(None, 3e-4), ({"rank": 8, "alpha": 16.0}, 5e-3)])
def test_what_vllm_samples_is_the_policy_that_was_just_learned(
    make_config: Callable[..., Any], start: Callable[[Any], Any], lora: dict[str, Any] | None, lr: float
) -> None:
    if lora:
        pytest.importorskip("peft")
    algo = start(
        make_config(
            model=SHIPPED["tiny"],
            dtype="float32",
            engine="vllm",
            kv_cache_gb=0.1,
            lr=lr,
            lora=lora,
            max_segment_tokens=40,
            max_episode_tokens=240,
        )
    )
    runner = algo.env_runner_group.local_env_runner
    tasks = [Task(number, number, seed=number) for number in range(5)]

    def largest_difference() -> float:
        """Between the log-probs that vLLM tells of its tokens and those of the learner's module."""
        differences = []
        for episode in runner.sample(tasks=tasks):
            ids = torch.from_numpy(episode.token_ids)
            with torch.no_grad():
                logprobs = runner.module.model(ids[None]).logits[0, :-1].log_softmax(-1)
            expected = logprobs.gather(-1, ids[1:, None])[:, 0].numpy()
            differences.append(abs(episode.logprobs[1:] - expected)[episode.action_mask[1:]].max())
        return float(max(differences))

    before = [episode.token_ids.tolist() for episode in runner.sample(tasks=tasks)]
    for _ in range(3):
        assert largest_difference() < 5e-3
        algo.train()
    assert largest_difference() < 5e-3
    assert [episode.token_ids.tolist() for episode in runner.sample(tasks=tasks)] != before

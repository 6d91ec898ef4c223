"""What happens depends on the seed, and on nothing that happens beside it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from functools import cache
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

pytest.importorskip("torch")

from search_agents.engines.base import SamplingParams
from search_agents.engines.transformers import TransformersEngine
from search_agents.models import find_model
from search_agents.rollout import Episode, Task, collect

import search_env
from search_env import SearchQAVectorEnv

ROOT = Path(search_env.__file__).parents[1]
SEARCH = "<begin_of_query> film director born <end_of_query>"
EPISODE = f"""
import hashlib, gymnasium as gym, search_env
env = gym.make("SearchQA-FictionalWiki-v0")
seen = [env.reset(seed=7), env.step({SEARCH!r}), env.step("</think> <answer> nobody </answer>")]
print(hashlib.sha256(repr(seen).encode()).hexdigest())
"""


@cache
def engine() -> TransformersEngine:
    return TransformersEngine.from_pretrained(find_model("tiny"), dtype="float32")


def play(num_envs: int, count: int) -> list[Episode]:
    """Episodes of the shipped model, so many at a time."""
    env = SearchQAVectorEnv(num_envs, dataset="fictional-wiki", split="test", prompt="bare", max_searches=2)
    tasks = [Task(question=number, group=number // 2, seed=1000 + number) for number in range(count)]
    sampling = SamplingParams(max_tokens=32)
    return collect(engine(), env, tasks, sampling=sampling, max_tokens=400, chat=False)


def told(episode: Episode) -> str:
    return repr((episode.token_ids.tolist(), episode.action_mask.tolist(), episode.reward, episode.transcript))


@pytest.mark.parametrize("num_envs", [8, 64])
def test_in_float32_an_episode_is_the_same_alone_and_beside_any_number_of_others(num_envs: int) -> None:
    """Risk 13: concurrency of 1, 8 and 64. Log-probs are the same to rounding; bfloat16 promises neither."""
    alone, beside = play(1, 10), play(num_envs, 10)
    assert len(set(map(told, alone))) == 10
    assert list(map(told, beside)) == list(map(told, alone))
    for one, other in zip(alone, beside, strict=True):
        np.testing.assert_allclose(other.logprobs, one.logprobs, rtol=0, atol=2e-5)
        assert one.logprobs[one.action_mask].min() < -0.1, "there is something to compare"


def test_an_episode_is_the_same_under_any_hash_seed() -> None:
    """Risk 13: PYTHONHASHSEED."""

    def digest(seed: str) -> str:
        paths = os.pathsep.join([str(ROOT), str(ROOT / "agents")])
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": paths}
        command = [sys.executable, "-c", EPISODE]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120).stdout

    first, *others = (digest(seed) for seed in ("0", "1", "random"))
    assert len(first) == 65 and others == [first, first]


def test_the_global_generators_are_left_alone() -> None:
    """Risk 13: the environment draws from generators of its own."""
    before = random.getstate(), repr(np.random.get_state())
    env = gym.make("search_env:SearchQA-FictionalWiki-v0")
    vector = SearchQAVectorEnv(2, dataset="fictional-wiki", split="test")
    for seed in (None, 3):
        env.reset(seed=seed)
        env.action_space.sample()
        env.step(SEARCH)
        vector.reset(seed=seed)
        vector.step([SEARCH, "</think> <answer> nobody </answer>"])
    assert (random.getstate(), repr(np.random.get_state())) == before


@pytest.mark.parametrize("state", [0, 123])
def test_the_global_generators_have_no_say(state: int) -> None:
    """Risk 13: the same episode whatever others have drawn."""
    random.seed(state)
    np.random.seed(state)
    env = gym.make("search_env:SearchQA-FictionalWiki-v0")
    seen = [env.reset(seed=7), env.step(SEARCH)]
    random.seed(state + 1)
    np.random.seed(state + 1)
    assert repr([env.reset(seed=7), env.step(SEARCH)]) == repr(seen)

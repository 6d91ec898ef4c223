"""A policy that searches, answers and errs at random, saved as a model folder, and questions to train it on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from search_env.datasets import Dataset
from search_env.retrieval.base import InMemoryRetriever
from search_env.types import Document, Question

CAPITALS = {"Norway": "Oslo", "Peru": "Lima", "Kenya": "Nairobi", "Japan": "Tokyo", "Cuba": "Havana"}


@pytest.fixture(scope="session")
def policy_folder(tokenizer: Any, make_model: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama whose tags are likely: the first hidden dimension is constant and so acts as a bias."""
    import torch

    ids = tokenizer.convert_tokens_to_ids
    model = make_model(initializer_range=0.1, tie_word_embeddings=False)
    boosts = {"<begin_of_query>": 5.9, "<end_of_query>": 5.5, "<answer>": 4.2, "</answer>": 4.2, "</think>": 4.2}
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = 4.0
        model.lm_head.weight[:, 0] = 0.0
        for tag, boost in boosts.items():
            model.lm_head.weight[ids(tag), 0] = boost / 3.6  # the constant after normalisation
    folder = tmp_path_factory.mktemp("policy")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def env_config() -> dict[str, Any]:
    documents = tuple(
        Document(id=str(number), title=country, text=f"Its capital is {city}.")
        for number, (country, city) in enumerate(CAPITALS.items())
    )
    questions = tuple(
        Question(id=country, text=f"Capital of {country}?", answers=(city,)) for country, city in CAPITALS.items()
    )
    dataset = Dataset(name="capitals", split="train", questions=questions, documents=documents)
    return {
        "dataset": dataset,
        "retriever": InMemoryRetriever(documents),
        "prompt": "bare",
        "top_k": 1,
        "reward": "stage1",
        "max_searches": 2,
    }


@pytest.fixture
def make_config(policy_folder: Path, env_config: dict[str, Any]) -> Callable[..., Any]:
    """Builds a small configuration of ReinforcePP; keyword arguments go to `training`."""
    from search_agents.learning import ReinforcePPConfig

    def build(**training: Any) -> Any:
        defaults = {
            "model": policy_folder,
            "lr": 1e-3,
            "prompts_per_batch": 4,
            "group_size": 3,
            "minibatch_size": 5,
            "max_segment_tokens": 12,
            "max_episode_tokens": 120,
            "autocast": False,
        }
        config = ReinforcePPConfig().environment("SearchQA-FictionalWiki-v0", env_config=env_config)
        return config.training(**(defaults | training)).env_runners(num_envs_per_env_runner=6)

    return build


@pytest.fixture
def start() -> Iterator[Callable[[Any], Any]]:
    """Builds the algorithm of a configuration and stops it at the end of the test."""
    algorithms: list[Any] = []

    def build(config: Any) -> Any:
        algorithms.append(config.build_algo())
        return algorithms[-1]

    yield build
    for algo in algorithms:
        algo.stop()

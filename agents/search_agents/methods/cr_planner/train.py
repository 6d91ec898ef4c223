"""Trains the four critics of CR-Planner on the pairs of a tree search, and says what they learned."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PositiveInt

from search_agents.learning.run_folder import write_json
from search_agents.methods.base import Setting
from search_agents.methods.cr_planner.collect import Pair, SearchOptions, collect
from search_agents.methods.cr_planner.mdp import Critic
from search_agents.methods.reward_model import RewardModel, RewardTraining
from search_env.errors import ConfigError
from search_env.types import Question

__all__ = ["FitOptions", "fit", "ranked_right", "train_critics"]


class FitOptions(SearchOptions):
    """How the critics are made."""

    encoder: str
    """What each critic starts from: an encoder or a causal language model, a folder or hub id (paper:
    Skywork/Skywork-Reward-Llama-3.1-8B)."""
    lora_rank: PositiveInt | None = None
    """Train adapters of this rank, as the paper does; by default every weight is trained."""
    encoder_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the encoder's weights; the lower ones are for adapters, whose base is not trained."""
    encoder_device: str = "cpu"
    """Where the critics are trained."""
    encoder_tokens: PositiveInt = 256
    """Tokens that a critic reads, the last ones of its text."""
    held_out: float = Field(default=0.25, gt=0.0, lt=1.0)
    """Share of the questions whose pairs are kept back to judge the critics."""
    training: RewardTraining = RewardTraining()
    """How each critic is trained."""


def fit(setting: Setting, questions: Sequence[Question], folder: Path, options: FitOptions) -> dict[str, Any]:
    """Collect pairs and train the critics; started again, it asks no question twice.

    Args:
        setting: Engine, corpus and budgets of the search.
        questions: Training questions.
        folder: Gets the pairs, a subfolder for each critic, and ``critics.json``.
        options: How to search and train.

    Returns:
        What `train_critics` returns.

    Raises:
        ConfigError: If a critic has nothing to learn from.
        RunError: If the folder's pairs were made with other settings.
    """
    folder.mkdir(parents=True, exist_ok=True)
    figures = train_critics(collect(setting, questions, folder, options), folder, options)
    write_json(folder / "critics.json", figures)
    return figures


def train_critics(by_question: Sequence[Sequence[Pair]], folder: Path, options: FitOptions) -> dict[str, Any]:
    """Train and save a reward model for each critic, in pairs.

    Args:
        by_question: The pairs of each question; a question's pairs are either all learned from or all held out.
        folder: Gets a subfolder for each critic.
        options: Encoder, training, and how many questions are held out.

    Returns:
        For each critic the numbers of pairs, the share of held-out pairs that it ranks right, trained and untrained
        (the same encoder under its random head), the share that the order of the candidates ranks right (of documents:
        the retriever's), and its last loss. The shares are None where no pair was held out.

    Raises:
        ConfigError: If a critic has nothing to learn from.
    """
    learned, held_out = _split([pairs for pairs in by_question if pairs], options.held_out, options.training.seed)
    for critic in Critic:
        if not any(pair.critic is critic for pair in learned):
            raise ConfigError(
                f"the {critic} critic has no pairs to learn from. Ask more questions, or let the search run more "
                "simulations in another folder."
            )
    return {
        str(critic): _train(
            critic,
            [pair for pair in learned if pair.critic is critic],
            [pair for pair in held_out if pair.critic is critic],
            folder,
            options,
        )
        for critic in Critic
    }


def ranked_right(model: RewardModel, pairs: Sequence[Pair]) -> float | None:
    """The share of pairs whose better candidate scores higher; a tie is half right, and of no pairs there is none."""
    if not pairs:
        return None
    scores = model.score([text for pair in pairs for text in pair.texts]).reshape(-1, 2)
    return float(((scores[:, 0] > scores[:, 1]) + 0.5 * (scores[:, 0] == scores[:, 1])).mean())


def _train(
    critic: Critic, learned: Sequence[Pair], held_out: Sequence[Pair], folder: Path, options: FitOptions
) -> dict[str, Any]:
    model = RewardModel.from_pretrained(
        options.encoder,
        max_tokens=options.encoder_tokens,
        dtype=options.encoder_dtype,
        device=options.encoder_device,
        lora_rank=options.lora_rank,
        seed=options.training.seed,
    )
    untrained = ranked_right(model, held_out)
    losses = model.fit_pairs([pair.texts for pair in learned], options.training)
    model.save(folder / critic)
    return {
        "pairs": len(learned),
        "held_out_pairs": len(held_out),
        "trained": ranked_right(model, held_out),
        "untrained": untrained,
        "in_order": sum(pair.places[0] < pair.places[1] for pair in held_out) / len(held_out) if held_out else None,
        "loss": losses[-1],
    }


def _split(by_question: Sequence[Sequence[Pair]], share: float, seed: int) -> tuple[list[Pair], list[Pair]]:
    """Pairs to learn from and pairs held out, no question in both."""
    order = list(by_question)
    random.Random(seed).shuffle(order)
    kept_back = round(len(order) * share)
    return (
        [pair for pairs in order[kept_back:] for pair in pairs],
        [pair for pairs in order[:kept_back] for pair in pairs],
    )

"""How an extractive compressor is trained."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt

from search_agents.config.sections import Section

__all__ = ["RecompFitOptions"]


class RecompFitOptions(Section):
    """How an extractive compressor is trained; numbers without a source are the authors' trainer's."""

    encoder: str
    """What training begins with: folder or hub id of a Hugging Face encoder. The paper takes facebook/contriever."""
    margin: NonNegativeFloat = 0.0
    """Nats by which the answer must be less likely after a sentence than after the best one to make it a negative."""
    negatives: PositiveInt = 5
    """Negatives of a question: of all, those that the encoder finds most similar before training (the paper)."""
    epochs: PositiveInt = 10
    """Passes over the training questions."""
    batch_size: PositiveInt = 64
    """Questions of one update."""
    learning_rate: PositiveFloat = 2e-5
    """Of AdamW, constant."""
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.2
    """Share of the questions that the figures are of, chosen by their ids (ours)."""
    device: str = "cpu"
    """Where the encoder is trained: cpu, cuda, …"""

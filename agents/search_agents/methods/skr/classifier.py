"""SKR's classifier judge: a small encoder that was trained on the labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from search_agents.learning.run_folder import write_json
from search_agents.methods.skr.encoders import HASHED_WORDS
from search_agents.methods.skr.rule import Label, Verdict
from search_env.errors import ConfigError

__all__ = ["ClassifierJudge"]

_PART = "part.json"
_MOST_TOKENS = 128  # of a question, as in the authors' encoder
_BATCH = 16


class ClassifierJudge:
    """Judges by a sequence classifier; its label 1 is to retrieve.

    Args:
        model: A transformers sequence classifier.
        tokenizer: Its tokenizer.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._model, self._tokenizer = model.eval(), tokenizer

    @classmethod
    def untrained(cls, encoder: str, *, seed: int) -> ClassifierJudge:
        """An encoder with a fresh head.

        Args:
            encoder: A Hugging Face encoder: a folder or hub id. The paper takes BERT (base, uncased).
            seed: Of the head's weights.

        Raises:
            ConfigError: If it cannot be loaded.
        """
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        if encoder == HASHED_WORDS:
            raise ConfigError(
                f"the classifier fine-tunes an encoder, and {HASHED_WORDS!r} is none. Give a Hugging Face folder or "
                "hub id: encoder=bert-base-uncased."
            )
        try:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                model = AutoModelForSequenceClassification.from_pretrained(
                    encoder, num_labels=2, dtype=torch.float32, use_safetensors=True, trust_remote_code=False
                )
            return cls(model, AutoTokenizer.from_pretrained(encoder, trust_remote_code=False))
        except (OSError, ValueError) as error:
            raise ConfigError(f"the encoder {encoder!r} cannot be loaded: {error}. Give a folder or hub id.") from error

    @classmethod
    def load(cls, folder: Path) -> ClassifierJudge:
        """Read what `save` wrote."""
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        model = AutoModelForSequenceClassification.from_pretrained(
            folder, use_safetensors=True, trust_remote_code=False
        )
        return cls(model, AutoTokenizer.from_pretrained(folder, trust_remote_code=False))

    def save(self, folder: Path, *, encoder: str, model: str) -> None:
        """Write the classifier; see `NeighbourJudge.save`."""
        folder.mkdir(parents=True, exist_ok=True)
        self._model.save_pretrained(folder)
        self._tokenizer.save_pretrained(folder)
        write_json(folder / _PART, {"encoder": encoder, "model": model})

    def train(self, rows: Sequence[dict[str, Any]], *, learning_rate: float, epochs: int, seed: int) -> float:
        """Fine-tune on the questions that retrieval made a difference for.

        Args:
            rows: See `collect_labels`; those with the label same are left out.
            learning_rate: Of AdamW.
            epochs: Times that each question is seen.
            seed: Of order and dropout.

        Returns:
            Mean cross-entropy of the last epoch.
        """
        telling = [row for row in rows if row["label"] != Label.SAME]
        optimizer = torch.optim.AdamW(self._model.parameters(), lr=learning_rate)
        order = np.random.default_rng(seed)
        losses: list[float] = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._model.train()
            for _ in range(epochs):
                shuffled = [telling[index] for index in order.permutation(len(telling))]
                losses = [
                    self._step(optimizer, shuffled[start : start + _BATCH]) for start in range(0, len(telling), _BATCH)
                ]
            self._model.eval()
        return float(np.mean(losses))

    def __call__(self, question: str) -> Verdict:
        """Judge a question."""
        with torch.inference_mode():
            probability = self._model(**self._encode([question])).logits[0].softmax(-1)[1].item()
        return Verdict(probability > 0.5, f"the classifier gives retrieval a probability of {probability:.3f}")

    def _step(self, optimizer: torch.optim.Optimizer, rows: Sequence[dict[str, Any]]) -> float:
        wanted = torch.tensor([int(row["label"] == Label.BETTER) for row in rows])
        loss = self._model(**self._encode([row["question"] for row in rows]), labels=wanted).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.item())

    def _encode(self, texts: Sequence[str]) -> Any:
        return self._tokenizer(list(texts), padding=True, truncation=True, max_length=_MOST_TOKENS, return_tensors="pt")

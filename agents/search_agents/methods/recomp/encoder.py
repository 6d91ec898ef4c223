"""The two compressors of RECOMP: an encoder that scores sentences, and a summarizer that may say nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError

from search_agents.models import find_model, model_fingerprint
from search_env.errors import ModelError

__all__ = ["DualEncoder", "Summarizer"]

_MAX_SENTENCE = 100  # Tokens, as in the authors' trainer.
_MAX_INPUT, _MAX_SUMMARY = 1024, 512  # Tokens, as in the authors' code for T5-large.


class DualEncoder:
    """Question and sentence as vectors of one encoder: the mean over its tokens, compared by inner product.

    Args:
        name: A folder or hub id of a Hugging Face encoder.
        device: Where it computes.

    Raises:
        ModelError: If it cannot be loaded.
    """

    def __init__(self, name: str, *, device: str = "cpu") -> None:
        self.fingerprint = model_fingerprint(find_model(name))
        self.model, self._tokenizer = _load(transformers.AutoModel, name, device)

    def encode(self, texts: Sequence[str]) -> torch.Tensor:
        """Vectors of texts, float [texts, dimensions]; gradients flow where they are on."""
        batch = self._tokenizer(
            list(texts), padding=True, truncation=True, max_length=_MAX_SENTENCE, return_tensors="pt"
        ).to(self.model.device)
        hidden = self.model(**batch).last_hidden_state
        mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        pooled: torch.Tensor = (hidden * mask).sum(1) / mask.sum(1)
        return pooled

    @torch.no_grad()
    def scores(self, question: str, sentences: Sequence[str]) -> list[float]:
        """Inner product of the question with each sentence."""
        vectors = self.encode([question, *sentences]).float()
        return (vectors[1:] @ vectors[0]).tolist()

    def save(self, folder: Path) -> None:
        """Write model and tokenizer, as `DualEncoder` reads them."""
        self.model.save_pretrained(folder)
        self._tokenizer.save_pretrained(folder)


class Summarizer:
    """A sequence-to-sequence model that sums up documents for a question, greedily.

    Args:
        name: A folder or hub id.
        device: Where it computes.

    Raises:
        ModelError: If it cannot be loaded.
    """

    def __init__(self, name: str, *, device: str = "cpu") -> None:
        self.fingerprint = model_fingerprint(find_model(name))
        self._model, self._tokenizer = _load(transformers.AutoModelForSeq2SeqLM, name, device)

    @torch.no_grad()
    def __call__(self, question: str, documents: Sequence[str]) -> str:
        """What the documents say about the question; empty if the model finds nothing worth reading."""
        # The fields, in the form that the released checkpoints were trained on.
        text = f"Question: {question}\n Document: {' '.join(documents)}\n Summary: "
        batch = self._tokenizer(text, truncation=True, max_length=_MAX_INPUT, return_tensors="pt")
        written = self._model.generate(
            input_ids=batch["input_ids"].to(self._model.device),
            attention_mask=batch["attention_mask"].to(self._model.device),
            max_new_tokens=_MAX_SUMMARY,
            do_sample=False,
        )
        return self._tokenizer.decode(written[0], skip_special_tokens=True).strip()  # type: ignore[no-any-return]


def _load(kind: Any, name: str, device: str) -> tuple[Any, Any]:
    try:
        found = find_model(name)
        tokenizer = transformers.AutoTokenizer.from_pretrained(found, trust_remote_code=False)
        model = kind.from_pretrained(found, use_safetensors=True, trust_remote_code=False)
    except (OSError, ValueError, SafetensorError) as error:
        raise ModelError(
            f"cannot load {name!r} as a compressor ({kind.__name__}): {str(error).strip() or type(error).__name__} "
            "Give a folder with config.json, model.safetensors and tokenizer.json, or the hub id of one."
        ) from error
    return model.to(device).eval(), tokenizer

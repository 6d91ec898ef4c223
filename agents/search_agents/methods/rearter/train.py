"""Trains the process reward model of ReARTeR, and collects critiques for its explanation model.

The folder holds ``prefixes.jsonl`` (a line a question: its prefixes and what they are
worth), ``reward-model/``, ``figures.json`` and, if asked for, ``critiques.jsonl`` with
``preferences.jsonl``, the same in the format of TRL's ``KTOTrainer``.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field, NonNegativeInt

from search_agents.config.sections import Section
from search_agents.engines.transformers import TransformersEngine
from search_agents.learning.run_folder import write_jsonl
from search_agents.methods.base import Setting
from search_agents.methods.rearter import REWARD_MODEL, ReARTeROptions
from search_agents.methods.rearter.annotate import AnnotationOptions, Annotator
from search_agents.methods.rearter.collect import CritiqueCollector, collect, preferences
from search_agents.methods.reward_model import RewardModel, RewardTraining
from search_env.errors import ConfigError
from search_env.types import Question

__all__ = ["FitOptions", "Labelled", "auc", "fit", "labelled", "measure"]


class FitOptions(Section):
    """How the reward model is made."""

    encoder: str = "sentence-transformers/all-MiniLM-L6-v2"
    """Folder or hub id of what the reward model is made of: an encoder, a causal model, or a reward model that goes on
    being trained (paper: Skywork-Reward-Llama-3.1-8B-v0.2 with LoRA)."""
    lora_rank: NonNegativeInt = 0
    """Rank of low-rank adapters; 0 trains the weights themselves."""
    encoder_dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of the encoder's weights; the lower ones are for adapters, whose base is not trained."""
    encoder_device: str = "cpu"
    """Where the reward model is trained, and computes while critiques are collected: cpu, cuda, …"""
    annotation: AnnotationOptions = AnnotationOptions()
    """How prefixes are labelled."""
    training: RewardTraining = RewardTraining()
    """How the reward model is trained on them."""
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.25
    """Share of the questions whose prefixes are kept for measuring."""
    stronger: str | None = None
    """Folder or hub id of a stronger model that annotates the questions which the model itself never answers right
    (paper: GPT-4o)."""
    stronger_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the stronger model's weights; auto: as they were saved."""
    stronger_device: str = "cpu"
    """Where the stronger model computes."""
    critiques: NonNegativeInt = 0
    """Questions, the first ones, on which critiques are collected once the reward model is trained."""


class Labelled(NamedTuple):
    """Prefixes of some questions."""

    texts: list[str]
    worth: list[float]
    """Share of right rollouts, in [0, 1)."""
    steps: list[int]

    @property
    def labels(self) -> npt.NDArray[np.bool_]:
        """``y = 1[MC > 0.5]`` (ReARTeR), [texts]."""
        return np.asarray(self.worth) > 0.5


def fit(
    setting: Setting, questions: Sequence[Question], folder: FilePath, options: FitOptions | None = None
) -> dict[str, Any]:
    """Annotate, train, measure; see `ReARTeR.fit`."""
    options = options or FitOptions()
    records = collect(Annotator(setting, options.annotation), questions, folder / "prefixes.jsonl")
    if options.stronger is not None:
        records += _annotate_again(setting, questions, records, folder, options)
    training = labelled(record for record in records if not _is_held_out(record["id"], options.held_out))
    held_out = labelled(record for record in records if _is_held_out(record["id"], options.held_out))
    for name, part in (("train", training), ("measure", held_out)):
        if len(set(part.labels.tolist())) < 2:
            raise ConfigError(
                f"{sum(part.labels)} of the {len(part.texts)} prefixes to {name} on lead to the answer; there must be "
                f"some that do and some that do not. Give more questions than {len(questions)}, or a better model."
            )
    model = RewardModel.from_pretrained(
        options.encoder,
        dtype=options.encoder_dtype,
        device=options.encoder_device,
        lora_rank=options.lora_rank or None,
    )
    untrained = measure(model.score(held_out.texts), held_out.labels)
    losses = model.fit_targets(training.texts, training.labels.astype(float).tolist(), options.training)
    model.save(folder / REWARD_MODEL)
    figures = {
        "questions": len({record["id"] for record in records}),
        "questions_with_prefixes": sum(bool(record.get("prefixes")) for record in records),
        "training": _counts(training),
        "held_out": _counts(held_out),
        "trained": measure(model.score(held_out.texts), held_out.labels),
        "untrained": untrained,
        "longest_first": measure(np.asarray(held_out.steps, dtype=np.float64), held_out.labels),
        "loss_by_epoch": [round(loss, 4) for loss in losses],
        "fingerprint": model.fingerprint,
    }
    if options.critiques:
        figures["critiques"] = _collect_critiques(setting, questions[: options.critiques], folder, options)
    (folder / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    return figures


def labelled(records: Any) -> Labelled:
    """The prefixes of records, see `Annotator`; those of a question without any add nothing."""
    prefixes = [prefix for record in records for prefix in record.get("prefixes", ())]
    return Labelled(*([prefix[key] for prefix in prefixes] for key in ("text", "mc", "steps")))


def measure(logits: npt.NDArray[Any], labels: npt.NDArray[np.bool_]) -> dict[str, float]:
    """How well logits tell right prefixes from wrong ones.

    Returns:
        ``auc``; ``accuracy`` of ``logit > 0``.
    """
    return {"auc": round(auc(logits, labels), 4), "accuracy": round(float(np.mean((logits > 0) == labels)), 4)}


def auc(scores: npt.NDArray[Any], labels: npt.NDArray[np.bool_]) -> float:
    """How often a right text has a greater score than a wrong one; a tie counts one half.

    Example:
        >>> auc(np.array([0.9, 0.4, 0.4]), np.array([True, True, False]))
        0.75
    """
    margins = scores[labels][:, None] - scores[~labels][None, :]
    return float(np.mean((margins > 0) + 0.5 * (margins == 0)))


def _is_held_out(id_: str, share: float) -> bool:
    """By the id alone, so that more questions leave those that were there where they were."""
    return int.from_bytes(hashlib.sha256(id_.encode()).digest()[:4]) / 2**32 < share


def _counts(part: Labelled) -> dict[str, int]:
    return {"prefixes": len(part.texts), "right": int(part.labels.sum())}


def _annotate_again(
    setting: Setting,
    questions: Sequence[Question],
    records: Sequence[dict[str, Any]],
    folder: FilePath,
    options: FitOptions,
) -> list[dict[str, Any]]:
    """What a stronger model makes of the questions that were never answered right."""
    unsolved = {record["id"] for record in records if record.get("mc") == 0}
    assert options.stronger is not None
    engine = TransformersEngine.from_pretrained(
        options.stronger, dtype=options.stronger_dtype, device=options.stronger_device
    )
    stronger = dataclasses.replace(setting, engine=engine)
    asked = [question for question in questions if question.id in unsolved]
    return collect(Annotator(stronger, options.annotation), asked, folder / "prefixes-stronger.jsonl")


def _collect_critiques(
    setting: Setting, questions: Sequence[Question], folder: FilePath, options: FitOptions
) -> dict[str, int]:
    settings = ReARTeROptions(
        part=str(folder),
        reward_model_dtype=options.encoder_dtype,
        reward_model_device=options.encoder_device,
        top_k=options.annotation.top_k,
    )
    records = collect(CritiqueCollector(setting, settings), questions, folder / "critiques.jsonl")
    rows = list(preferences(records, chat=setting.chat))
    write_jsonl(folder / "preferences.jsonl", rows)
    return {
        "questions": len(records),
        "written": sum(len(record.get("critiques", ())) for record in records),
        "kept": len(rows),
        "desirable": sum(row["label"] for row in rows),
    }

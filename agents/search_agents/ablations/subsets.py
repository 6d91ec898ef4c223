"""Parts of a set's training questions, as splits of a folder that holds the whole set besides."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from search_agents.config import SFTConfig, TrainConfig
from search_agents.config.ablation import SubsetSection
from search_agents.learning.run_folder import write_json
from search_env import datasets
from search_env.datasets.jsonl import write_folder
from search_env.errors import ConfigError
from search_env.registration import ENVIRONMENTS
from search_env.types import Question

__all__ = ["write_subsets"]

_TRAIN = "train"
_DESCRIPTION = "subsets.json"


def write_subsets(subsets: Mapping[str, SubsetSection], config: TrainConfig | SFTConfig, folder: Path) -> None:
    """Write the set of a config with parts of its training questions, unless the folder holds them already.

    Args:
        subsets: The parts by the names of their splits.
        config: Names the set, and the split of its evaluation.
        folder: Where; the training questions, those of the evaluation and one corpus are written too.

    Raises:
        ConfigError: If a subset has no question, or the folder holds others.
        DatasetError: If the data is missing or malformed.
    """
    name, data = ENVIRONMENTS[config.env.id], config.env.data
    whole = {split: datasets.load(name, split=split, data=data) for split in (_TRAIN, config.evaluation.split)}
    questions = whole[_TRAIN].questions
    parts = {key: [each for each in questions if _is_in(each, subset)] for key, subset in subsets.items()}
    for key, part in parts.items():
        if not part:
            hops, kinds = sorted({each.hops or 0 for each in questions}), sorted({each.kind for each in questions})
            raise ConfigError(
                f"subsets.{key} holds none of the {len(questions)} training questions of {name}: they have the hops "
                f"{hops} and the kinds {', '.join(kinds)}."
            )
    description = {
        "set": {split: dataset.fingerprint for split, dataset in whole.items()},
        "subsets": {key: subset.model_dump(mode="json") for key, subset in subsets.items()},
        "questions": {key: len(part) for key, part in parts.items()},
    }
    if folder.exists():
        _require_same(folder / _DESCRIPTION, description)
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, ignore_cleanup_errors=True) as beside:
        for split, dataset in whole.items():
            write_folder(beside, split, dataset.questions, dataset.documents)
        for key, part in parts.items():
            write_folder(beside, key, part, ())
        write_json(Path(beside) / _DESCRIPTION, description)
        os.rename(beside, folder)  # whole or not at all


def _is_in(question: Question, subset: SubsetSection) -> bool:
    return (subset.hops is None or question.hops in subset.hops) and (
        subset.kinds is None or question.kind in subset.kinds
    )


def _require_same(file: Path, description: Mapping[str, object]) -> None:
    if not file.is_file() or json.loads(file.read_text(encoding="utf-8")) != description:
        raise ConfigError(
            f"{file.parent} holds other questions than this ablation is about. Give another folder with --out."
        )

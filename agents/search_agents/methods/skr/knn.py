"""SKR's k-nearest-neighbour judge: what retrieval did for the training questions that are most like this one."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from search_agents.learning.run_folder import write_json
from search_agents.methods.skr.encoders import Encoder, make_encoder
from search_agents.methods.skr.rule import Label, Totals, Verdict, should_retrieve

__all__ = ["NeighbourJudge"]

_VECTORS, _PART = "vectors.safetensors", "part.json"


class NeighbourJudge:
    """Judges by labelled neighbours.

    Args:
        vectors: Unit vectors of the training questions, [questions, dimensions].
        labels: Their labels.
        encoder: Makes vectors of new questions.
        neighbours: k.
        index_same: Whether questions with the label same can be neighbours. They always count in the totals.
    """

    def __init__(
        self,
        vectors: npt.NDArray[np.float32],
        labels: Sequence[str],
        encoder: Encoder,
        *,
        neighbours: int,
        index_same: bool,
    ) -> None:
        self._all, self._all_labels = vectors, list(labels)
        self._encoder, self._k = encoder, neighbours
        self._totals = Totals.of(labels)
        kept = [row for row, label in enumerate(labels) if index_same or label != Label.SAME]
        self._vectors, self._labels = vectors[kept], [labels[row] for row in kept]

    @classmethod
    def fit(cls, rows: Sequence[dict[str, Any]], encoder: str, *, neighbours: int, index_same: bool) -> NeighbourJudge:
        """Encode labelled questions; see `collect_labels` for the rows."""
        encode = make_encoder(encoder)
        vectors = encode([row["question"] for row in rows])
        labels = [row["label"] for row in rows]
        return cls(vectors, labels, encode, neighbours=neighbours, index_same=index_same)

    @classmethod
    def load(cls, folder: Path, *, neighbours: int, index_same: bool) -> NeighbourJudge:
        """Read what `save` wrote."""
        from safetensors.numpy import load_file

        part = json.loads((folder / _PART).read_text(encoding="utf-8"))
        vectors = load_file(folder / _VECTORS)["vectors"]
        encoder = make_encoder(part["encoder"])
        return cls(vectors, part["labels"], encoder, neighbours=neighbours, index_same=index_same)

    def save(self, folder: Path, *, encoder: str, model: str) -> None:
        """Write vectors and labels, those with the label same included.

        Args:
            folder: Where.
            encoder: Name of the encoder.
            model: Name of the language model that the labels are of.
        """
        from safetensors.numpy import save_file

        folder.mkdir(parents=True, exist_ok=True)
        save_file({"vectors": np.ascontiguousarray(self._all)}, folder / _VECTORS)
        write_json(folder / _PART, {"encoder": encoder, "model": model, "labels": self._all_labels})

    def __call__(self, question: str) -> Verdict:
        """Judge a question; of equally near neighbours the earlier one counts."""
        nearness = self._vectors @ self._encoder([question])[0]
        nearest = np.argsort(-nearness, kind="stable")[: self._k]
        better, worse, same = Totals.of(self._labels[row] for row in nearest)
        retrieve = should_retrieve(better, worse, neighbours=self._k, totals=self._totals)
        why = f"of {len(nearest)} neighbours retrieval helped {better}, harmed {worse}, changed nothing for {same}"
        return Verdict(retrieve, why)

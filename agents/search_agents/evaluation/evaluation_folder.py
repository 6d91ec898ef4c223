"""The folder of an evaluation: enough to tell what was measured, and to go on where it stopped.

::

    outputs/eval-<method>-<time>/
    ├── evaluation.json        what is measured: config, questions, retriever, model, trained part, origin
    ├── transcripts-0.jsonl    one for each temperature: a line as soon as a question is answered
    └── result.json            the scores, written last

A question counts as answered once its transcript is valid: the retriever did not fail.
The others are asked again when the evaluation is resumed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from search_agents.config import EvalConfig, differing_keys
from search_agents.evaluation.transcript_log import TranscriptLog
from search_agents.learning.run_folder import write_json
from search_env.errors import ConfigError, RunError

__all__ = ["EvaluationFolder"]

_DESCRIPTION = "evaluation.json"
_RESULT = "result.json"


class EvaluationFolder:
    """The files of an evaluation. Make one with `create` or `open`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @staticmethod
    def is_at(path: Path) -> bool:
        """Whether there is an evaluation that can be resumed."""
        return (path / _DESCRIPTION).is_file()

    @classmethod
    def create(cls, path: Path, description: Mapping[str, Any], origin: Mapping[str, Any]) -> EvaluationFolder:
        """Make the folder of a new evaluation.

        Args:
            path: Where, new or empty.
            description: All that decides the scores; see `require_same`.
            origin: What else is known of the circumstances.
        """
        write_json(path / _DESCRIPTION, {**description, "origin": origin})
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> EvaluationFolder:
        """Open the folder of an evaluation.

        Raises:
            RunError: If it is none.
        """
        if not cls.is_at(path):
            raise RunError(
                f"{path} holds no evaluation: {_DESCRIPTION} is missing. Give a folder of `search-env eval`."
            )
        return cls(path)

    def description(self) -> dict[str, Any]:
        """What is measured, and where it was begun.

        Raises:
            RunError: If the file is damaged.
        """
        return self._read(_DESCRIPTION)

    def config(self) -> EvalConfig:
        """The config that the evaluation was started with.

        Raises:
            ConfigError: If this version of search-env does not understand it.
        """
        try:
            return EvalConfig.model_validate(self.description()["config"])
        except (KeyError, ValueError) as error:
            raise ConfigError(
                f"{self.path / _DESCRIPTION} was written by another version of search-env: {error}"
            ) from None

    def require_same(self, description: Mapping[str, Any], source: str) -> None:
        """Refuse to mix what cannot be compared.

        Args:
            description: What would be measured now, or a part of it.
            source: Where that comes from, for the message.

        Raises:
            ConfigError: Names every key that differs from what was measured before.
        """
        before = self.description()
        keys = differing_keys({key: before.get(key) for key in description}, description)
        if keys:
            raise ConfigError(
                f"cannot go on with the evaluation in {self.path}: {source} differs from what it was started with in: "
                f"{', '.join(keys)}. Undo that, or start a new evaluation with `search-env eval --out FOLDER`."
            )

    def log(self, temperature: float) -> TranscriptLog:
        """The transcripts at one temperature."""
        return TranscriptLog(self.path / f"transcripts-{temperature:g}.jsonl")

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write the scores."""
        write_json(self.path / _RESULT, result)

    def result(self) -> dict[str, Any] | None:
        """The scores, or None if the evaluation has not come to its end.

        Raises:
            RunError: If the file is damaged.
        """
        return self._read(_RESULT) if (self.path / _RESULT).is_file() else None

    @property
    def has_answers(self) -> bool:
        """Whether a question has been asked to its end."""
        return any(self.path.glob("transcripts-*.jsonl"))

    def remove(self) -> None:
        """Delete the folder of an evaluation that has no answers: it only says what was meant."""
        (self.path / _DESCRIPTION).unlink()
        self.path.rmdir()

    def _read(self, name: str) -> dict[str, Any]:
        try:
            value: dict[str, Any] = json.loads((self.path / name).read_text(encoding="utf-8"))
        except ValueError as error:
            raise RunError(
                f"{self.path / name}: is not JSON: {error}. Start a new evaluation with `search-env eval`."
            ) from None
        return value

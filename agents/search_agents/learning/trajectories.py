"""The folder of a rejection sampling: the episodes that were kept, and what was thrown away.

::

    outputs/sample-<time>/
    ├── sampling.json          what is sampled, with which model, over which documents; at the end the counts
    ├── trajectories.jsonl     one line for each episode that was kept, tokens and mask included
    └── questions.jsonl        one line for each question: how many of its episodes were right, how many kept

A question counts as done once its line in questions.jsonl is written, after its episodes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from search_agents.config import SampleConfig, differing_keys
from search_agents.learning.run_folder import read_jsonl, write_json, write_jsonl, write_text
from search_agents.rollout import Episode
from search_env.errors import ConfigError, RunError

__all__ = ["Outcome", "TrajectoryFolder"]

_DESCRIPTION = "sampling.json"
_EPISODES = "trajectories.jsonl"
_QUESTIONS = "questions.jsonl"


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How the episodes of a question went."""

    question_id: str
    hops: int | None
    sampled: int
    searched: int
    """Episodes that searched."""
    right: int
    kept: int
    kept_with_search: int


class TrajectoryFolder:
    """The files of a rejection sampling. Make one with `create` or `open`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @staticmethod
    def is_at(path: Path) -> bool:
        """Whether there is a sampling."""
        return (path / _DESCRIPTION).is_file()

    @classmethod
    def create(cls, path: Path, description: Mapping[str, Any], origin: Mapping[str, Any]) -> TrajectoryFolder:
        """Make the folder of a new sampling.

        Args:
            path: Where, new or empty.
            description: All that decides the episodes; see `require_same`.
            origin: What else is known of the circumstances.
        """
        write_json(path / _DESCRIPTION, {**description, "origin": origin})
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> TrajectoryFolder:
        """Open the folder of a sampling.

        Raises:
            RunError: If it is none.
        """
        if not cls.is_at(path):
            what = "does not exist" if not path.exists() else f"holds no trajectories: {_DESCRIPTION} is missing"
            raise RunError(f"{path} {what}. Give a folder that `search-env sample` has written.")
        return cls(path)

    def description(self) -> dict[str, Any]:
        """What is sampled, and where it was begun.

        Raises:
            RunError: If the file is damaged.
        """
        try:
            value: dict[str, Any] = json.loads((self.path / _DESCRIPTION).read_text(encoding="utf-8"))
        except ValueError as error:
            raise RunError(
                f"{self.path / _DESCRIPTION}: is not JSON: {error}. Sample anew with `search-env sample`."
            ) from None
        return value

    def config(self) -> SampleConfig:
        """The config that the sampling was started with.

        Raises:
            ConfigError: If this version of search-env does not understand it.
        """
        try:
            return SampleConfig.model_validate(self.description()["config"])
        except (KeyError, ValueError) as error:
            raise ConfigError(
                f"{self.path / _DESCRIPTION} was written by another version of search-env: {error}"
            ) from None

    def require_same(self, description: Mapping[str, Any], source: str) -> None:
        """Refuse to mix episodes of different origin.

        Raises:
            ConfigError: Names every key that differs from what was sampled before.
        """
        before = self.description()
        keys = differing_keys({key: before.get(key) for key in description}, description)
        if keys:
            raise ConfigError(
                f"cannot go on with the sampling in {self.path}: {source} differs from what it was started with in: "
                f"{', '.join(keys)}. Undo that, or start a new one with `search-env sample --out FOLDER`."
            )

    def outcomes(self) -> list[Outcome]:
        """The questions that are done, in order."""
        return [Outcome(**row) for row in read_jsonl(self.path / _QUESTIONS)]

    def rewind(self, questions: int) -> None:
        """Forget all but the first questions, with whatever a stop has left half done."""
        outcomes = self.outcomes()[:questions]
        lines = self._lines()[: sum(outcome.kept for outcome in outcomes)]
        write_text(self.path / _EPISODES, "".join(f"{line}\n" for line in lines))
        write_jsonl(self.path / _QUESTIONS, map(asdict, outcomes))

    def append(self, outcomes: Sequence[Outcome], episodes: Sequence[Episode]) -> None:
        """Add questions with the episodes kept of them, which lie on the disk first."""
        _append(self.path / _EPISODES, [episode.to_json() for episode in episodes])
        _append(self.path / _QUESTIONS, [json.dumps(asdict(outcome)) for outcome in outcomes])

    def finish(self) -> dict[str, int]:
        """Write the counts, which mark the sampling as finished; returns them."""
        outcomes = self.outcomes()
        names = ("sampled", "searched", "right", "kept", "kept_with_search")
        counts = {"questions": len(outcomes), **{n: sum(getattr(each, n) for each in outcomes) for n in names}}
        counts["questions_with_kept"] = sum(outcome.kept > 0 for outcome in outcomes)
        write_json(self.path / _DESCRIPTION, {**self.description(), "counts": counts})
        return counts

    def counts(self) -> dict[str, int] | None:
        """Episodes sampled, right and kept, or None if the sampling has not come to its end."""
        return self.description().get("counts")

    def episodes(self) -> list[Episode]:
        """The episodes that were kept.

        Raises:
            RunError: If the sampling is not finished or has kept none, or a line cannot be read.
        """
        counts = self.counts()
        if counts is None:
            raise RunError(f"the sampling in {self.path} is not finished. Go on with: search-env resume {self.path}")
        try:
            episodes = [Episode.from_json(line) for line in self._lines()]
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(
                f"{self.path / _EPISODES}: a line is no episode: {error!r}. Sample anew with `search-env sample`."
            ) from error
        if len(episodes) != counts["kept"]:
            raise RunError(
                f"{self.path / _EPISODES} holds {len(episodes)} episodes, but {counts['kept']} were kept. "
                "Bring the file back as it was, or sample anew with `search-env sample`."
            )
        if not episodes:
            raise RunError(
                f"the sampling in {self.path} has kept none of {counts['sampled']} episodes: nothing to imitate. "
                "Sample more questions, a better model, or by a milder rule: see --keep in `search-env sample --help`."
            )
        return episodes

    def remove_if_unused(self) -> None:
        """Delete the folder of a sampling that has asked no question: it only says what was meant."""
        if not self.outcomes():
            for name in (_DESCRIPTION, _EPISODES, _QUESTIONS):
                (self.path / name).unlink(missing_ok=True)
            self.path.rmdir()

    def _lines(self) -> list[str]:
        file = self.path / _EPISODES
        return file.read_text(encoding="utf-8").splitlines() if file.is_file() else []


def _append(file: Path, lines: Sequence[str]) -> None:
    """Add lines that are on the disk when this returns."""
    with file.open("a", encoding="utf-8") as stream:
        stream.writelines(f"{line}\n" for line in lines)
        stream.flush()
        os.fsync(stream.fileno())

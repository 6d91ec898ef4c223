"""The folder of a leaderboard: rows, and beside each the episodes that it was scored from.

::

    BOARD/
    ├── rows/<benchmark>/<agent>--<model>--t0--seed0--<hash>.json             the row
    ├── rows/<benchmark>/<agent>--<model>--t0--seed0--<hash>.jsonl.gz         its episodes
    ├── rows/<benchmark>/judgements-<agent>--…--<hash>.jsonl                  what a judge said of them, if one did
    ├── LEADERBOARD.md         made by `search-env leaderboard show`
    └── leaderboard.html

The hash is of what the row is about (see `Row.identity`), so the same experiment has the
same name wherever it is added.
"""

from __future__ import annotations

import dataclasses
import gzip
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from search_agents.evaluation.judge import Judgement, judgements_beside
from search_agents.leaderboard.measure import differences, judgements_of, measure, read_episodes
from search_agents.leaderboard.questions import disagreeing, problem_of_questions, require_data
from search_agents.leaderboard.row import Row, digest, read_row
from search_agents.learning.run_folder import write_jsonl, write_text
from search_env.datasets.files import read_bytes
from search_env.errors import RunError, SearchEnvError

__all__ = ["Board", "Candidate", "Checked", "Refused", "row_name"]

_EPISODES = ".jsonl.gz"
_LONGEST = 60


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A row that is not on the board yet."""

    row: Row
    episodes: Path
    judgements: Sequence[Judgement | None]


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A row that is not shown, and why."""

    name: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Checked:
    """The rows of a board after scoring them again."""

    rows: dict[str, Row]
    """Those that agree with their episodes, by name."""
    refused: tuple[Refused, ...]
    warnings: tuple[str, ...] = ()
    """What could not be told of the rows that are shown, or looks wrong about them."""


class Board:
    """A leaderboard on disk.

    Args:
        path: Its folder; it need not exist before a row is added.
        data: Where data of sets lies, so that gold answers can be compared with it; see `problem_of_questions`.

    Raises:
        DatasetError: If data lies nowhere.
    """

    def __init__(self, path: Path, *, data: Sequence[str] = ()) -> None:
        require_data(data)
        self.path, self._data = path, data
        self._rows = path / "rows"

    def names(self) -> list[str]:
        """The names of all rows: ``<benchmark>/<agent>--…``."""
        return sorted(str(file.relative_to(self._rows).with_suffix("")) for file in self._rows.glob("*/*.json"))

    def check(self) -> Checked:
        """Score every row again from its stored episodes, and hold their gold answers to the set if it is here.

        Raises:
            RunError: If the folder holds no rows.
        """
        if not self.names():
            raise RunError(
                f"{self.path} holds no rows of a leaderboard. Add one: "
                f"search-env leaderboard add EVALUATION --board {self.path}"
            )
        rows: dict[str, Row] = {}
        refused: list[Refused] = []
        unknown: dict[str, None] = {}
        for name in self.names():
            try:
                rows[name], compared = self._checked(name)
                if not compared:
                    unknown[_set_of(rows[name])] = None
            except SearchEnvError as error:
                refused.append(Refused(name=name, reason=str(error).replace(f"{self.path}{os.sep}", "")))
            # A stranger's file may hold anything at all; whatever breaks the scorer is the row's fault.
            except (OSError, TypeError, ValueError, AttributeError, KeyError) as error:
                problem = f"{type(error).__name__}: {error}"
                refused.append(Refused(name=name, reason=f"its episodes cannot be scored ({problem})"))
        untold = (
            f"{each}: nobody has compared its questions and gold answers with the set; name its data: --data FOLDER."
            for each in unknown
        )
        return Checked(rows=rows, refused=tuple(refused), warnings=(*untold, *disagreeing(rows)))

    def add(self, candidate: Candidate, *, replace: bool = False) -> tuple[str, bool]:
        """Put a row and its episodes on the board.

        Args:
            candidate: The row.
            replace: Whether it takes the place of a row about the same experiment.

        Returns:
            Its name, and whether anything was written: a row with the same scores is left as it is.

        Raises:
            RunError: If the same experiment is there with other scores, and `replace` is false.
        """
        name = row_name(candidate.row)
        file = self._file(name)
        if file.exists() and not replace:
            if read_row(file).scores == candidate.row.scores:
                return name, False
            raise RunError(
                f"{file} holds the same experiment with other scores. Look at both, then write over it with --replace, "
                "or leave it."
            )
        episodes = file.with_suffix(_EPISODES)
        file.parent.mkdir(parents=True, exist_ok=True)
        _write_bytes(episodes, gzip.compress(read_bytes(candidate.episodes), mtime=0))
        judged = [dataclasses.asdict(each) for each in candidate.judgements if each and candidate.row.judge]
        if judged:
            write_jsonl(judgements_beside(episodes), judged)
        else:
            judgements_beside(episodes).unlink(missing_ok=True)
        write_text(file, candidate.row.text())
        return name, True

    def _checked(self, name: str) -> tuple[Row, bool]:
        """A row that agrees with its episodes, and whether its set is here, so that they agree with that, too."""
        file = self._file(name)
        row = read_row(file)
        if row_name(row) != name:
            raise RunError(f"the row is about another experiment than its name says: {row_name(row)}")
        episodes = file.with_suffix(_EPISODES)
        transcripts = read_episodes(episodes)
        found = measure(episodes, transcripts, judgements_of(episodes, transcripts, row.judge))
        if told := differences(row.measured(), found):
            raise RunError("; ".join(told))
        if problem := problem_of_questions(row.benchmark, transcripts, self._data):
            raise RunError(problem)
        return row, problem is not None

    def _file(self, name: str) -> Path:
        return self._rows / f"{name}.json"


def row_name(row: Row) -> str:
    """The name of a row; nothing in it can leave the board's folder."""
    benchmark, identity = row.benchmark, digest(row.identity())[:10]
    data = f"{benchmark.environment.removeprefix('SearchQA-')}-{benchmark.split}-{benchmark.questions}"
    parts = [row.agent.name, *([row.model.name] if row.model else []), f"t{row.agent.temperature:g}", f"seed{row.seed}"]
    return f"{_plain(data)}-{_plain(benchmark.dataset_hash)[:8]}/{'--'.join(map(_plain, parts))}--{identity}"


def _set_of(row: Row) -> str:
    benchmark = row.benchmark
    return f"{benchmark.environment}, {benchmark.split}, dataset {benchmark.dataset_hash}"


def _plain(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9=_-]+", "_", text)[:_LONGEST].strip("_") or "_"


def _write_bytes(file: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    beside = file.with_name(f".{file.name}.tmp")
    beside.write_bytes(data)
    with beside.open("rb") as stream:
        os.fsync(stream.fileno())
    beside.replace(file)

"""Real evaluations of a few questions: the shipped model, the oracle and the random agent."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from search_agents.config import ComparisonConfig
from search_agents.evaluation.comparison import run_comparison
from search_agents.leaderboard.board import Board
from search_agents.leaderboard.submit import candidates, evaluations_in


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison of three agents on six questions."""
    folder = tmp_path_factory.mktemp("bench")
    config = ComparisonConfig.model_validate(
        {
            "methods": ["standard-rag", "oracle", "random"],
            "sets": [{"split": "test"}],
            "evaluation": {"questions": 6, "temperatures": [0.0], "batch_size": 6},
        }
    )
    run_comparison(config, folder, tell=lambda line: None)
    return folder


@pytest.fixture(scope="session")
def full_board(bench: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All three on one board; do not change it."""
    path = tmp_path_factory.mktemp("boards") / "board"
    add(path, bench)
    return path


@pytest.fixture
def board(full_board: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(full_board, tmp_path / "board"))


def add(board: Path, *evaluations: Path) -> list[str]:
    """Put evaluations on a board; returns the names of the rows."""
    folders = [folder for path in evaluations for folder in evaluations_in(path)[0]]
    return [Board(board).add(candidate)[0] for folder in folders for candidate in candidates(folder)]

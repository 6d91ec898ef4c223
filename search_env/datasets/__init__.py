"""Datasets: question sets with the corpora that answer them, found by name."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from search_env.datasets import custom
from search_env.datasets.bamboogle import BAMBOOGLE
from search_env.datasets.base import Dataset, Loader
from search_env.datasets.hotpotqa import HOTPOTQA
from search_env.datasets.jsonl import read_corpus, read_questions
from search_env.datasets.musique import MUSIQUE
from search_env.datasets.r1_searcher import R1_SEARCHER_LISTS
from search_env.datasets.rows import SkippedRows
from search_env.datasets.two_wiki import TWO_WIKI
from search_env.errors import ConfigError, unknown_name
from search_env.plugins import DATASETS as PLUGINS
from search_env.plugins import load_plugin, plugins

__all__ = [
    "DATASETS",
    "PUBLISHED",
    "Dataset",
    "Loader",
    "SkippedRows",
    "dataset_names",
    "load",
    "read_corpus",
    "read_questions",
]


def _fictional_wiki(split: str, data: str | Path | None, _skipped: SkippedRows | None = None) -> Dataset:
    # The generator is imported when its world is asked for: `import search_env` stays fast.
    from search_env.datasets import fictional_wiki

    return fictional_wiki.load(split, data)


PUBLISHED = (HOTPOTQA, TWO_WIKI, MUSIQUE, BAMBOOGLE, R1_SEARCHER_LISTS)
"""The sets that others publish."""

DATASETS: dict[str, Loader] = {
    "fictional-wiki": _fictional_wiki,
    **{published.name: published.load for published in PUBLISHED},
    "custom": custom.load,
}
"""Our own datasets by their names."""


def dataset_names() -> list[str]:
    """Every name there is, those of installed packages included."""
    return [*DATASETS, *(name for name in plugins(PLUGINS) if name not in DATASETS)]


def _loader(name: str) -> Loader:
    return DATASETS[name] if name in DATASETS else load_plugin(PLUGINS, name)


def load(
    name: str, *, split: str = "train", data: str | Path | None = None, skipped: SkippedRows | None = None
) -> Dataset:
    """Load a dataset, once for each process as long as its files do not change.

    Args:
        name: One of `dataset_names`.
        split: Name of the split.
        data: Where the data lies (``~`` is the home folder); None for a dataset that needs none.
        skipped: Counts the malformed rows that are left out, and the dataset is read anew; None if there must be none.

    Returns:
        The dataset.

    Raises:
        ConfigError: If there is no dataset or split of that name.
        DatasetError: If the data is missing or malformed.
        PluginError: If the dataset is of another package, and that is broken.
    """
    if name not in dataset_names():
        raise ConfigError(unknown_name("dataset", name, dataset_names()))
    if not isinstance(data, str | Path | None):
        raise ConfigError(f"data must be a path or the id of a dataset on the hub, got {type(data).__name__}")
    if data is not None:
        data = os.path.expanduser(data)
    if skipped is not None:
        return _loader(name)(split, data, skipped)
    return _load(name, split, data, _file_states(data))


@lru_cache(maxsize=8)
def _load(name: str, split: str, data: str | None, _states: tuple[tuple[str, int, int], ...]) -> Dataset:
    return _loader(name)(split, data, None)


_ENDINGS = {".json", ".jsonl", ".csv", ".gz", ".bz2"}


def _file_states(data: str | None) -> tuple[tuple[str, int, int], ...]:
    """Name, time of change and size of each file: a key that changes when the data does."""
    if data is None:
        return ()
    path = Path(data)
    folder = path if path.is_dir() else path.parent
    files = sorted(file for file in folder.glob("*") if file.suffix in _ENDINGS)
    return tuple((str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in files)

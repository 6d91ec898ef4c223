"""Retrievers: engines that search a corpus, found by name and imported when they are used.

A config names one by a *spec*: a name (``bm25``), or a mapping with the name and the
settings of that retriever (``{name: bm25, index: FOLDER}``). Wrappers hold the spec of
what they wrap: ``{name: resilient, of: {name: http, url: …}}``. A package of yours adds
one through the entry point group ``search_env.retrievers``: a class of settings, like
those here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, Protocol

from search_env.errors import ConfigError, unknown_name, wrong_settings
from search_env.plugins import RETRIEVERS, load_plugin, plugins
from search_env.retrieval.base import InMemoryRetriever, Retriever
from search_env.types import Document

__all__ = [
    "BUILT_IN",
    "InMemoryRetriever",
    "Retriever",
    "RetrieverSettings",
    "RetrieverSpec",
    "get_retriever",
    "retriever_names",
    "retriever_settings",
]

RetrieverSpec = str | Mapping[str, Any]
"""A name, or a mapping with ``name`` and that retriever's settings."""

BUILT_IN = {
    "bm25": "search_env.retrieval.bm25:BM25Settings",
    "bm25-memory": "search_env.retrieval.bm25_memory:BM25MemorySettings",
    "cached": "search_env.retrieval.cache:CachedSettings",
    "elasticsearch": "search_env.retrieval.elasticsearch:ElasticsearchSettings",
    "http": "search_env.retrieval.http:HTTPSettings",
    "hybrid": "search_env.retrieval.hybrid:HybridSettings",
    "online": "search_env.retrieval.online:OnlineSettings",
    "opensearch": "search_env.retrieval.opensearch:OpenSearchSettings",
    "recorded": "search_env.retrieval.cassette:RecordedSettings",
    "replay": "search_env.retrieval.cassette:ReplaySettings",
    "resilient": "search_env.retrieval.resilience:ResilientSettings",
}
"""The retrievers of `search_env` by name, each with the place of its settings."""


class RetrieverSettings(Protocol):
    """The settings of one sort of retriever: a frozen pydantic model whose keys are those of the spec."""

    def build(self, documents: Sequence[Document]) -> Retriever:
        """Make the retriever.

        Args:
            documents: The corpus of the environment; an engine with documents of its own does not look at it.
        """
        ...


def retriever_names() -> Mapping[str, str]:
    """Every name there is, those of installed packages included, with the place of its settings."""
    installed = {name: point.value for name, point in plugins(RETRIEVERS).items()}
    return dict(sorted({**installed, **BUILT_IN}.items()))


def retriever_settings(spec: RetrieverSpec) -> RetrieverSettings:
    """Check a spec, and the specs of what it wraps; nothing is built or opened.

    Raises:
        ConfigError: If there is no such retriever, or a setting is wrong.
        MissingDependencyError: If the package it needs is not installed.
        PluginError: If it is of another package, and that is broken.
    """
    from pydantic import ValidationError  # here: `import search_env` stays fast

    settings = {"name": spec} if isinstance(spec, str) else dict(spec)
    name = settings.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError(f"a retriever is a name or a mapping with the key 'name', got {spec!r}. For example: bm25.")
    if name not in retriever_names():
        raise ConfigError(unknown_name("retriever", name, retriever_names()))
    if name in BUILT_IN:
        module, _, attribute = BUILT_IN[name].partition(":")
        kind = getattr(import_module(module), attribute)
    else:
        kind = load_plugin(RETRIEVERS, name)
    try:
        made: RetrieverSettings = kind(**settings)
    except ValidationError as error:
        problems = wrong_settings(error.errors(), kind.model_fields)
        allowed = ", ".join(kind.model_fields) or "none"
        raise ConfigError(f"retriever {name!r}: {problems} Its settings: {allowed}.") from None
    wrapped = settings.get("of", ()) if name in BUILT_IN else ()  # that of a package may mean anything
    for inner in wrapped if isinstance(wrapped, list | tuple) else (wrapped,):
        if isinstance(inner, str | Mapping):  # and not a ready retriever
            retriever_settings(inner)
    return made


def get_retriever(spec: RetrieverSpec | Retriever, documents: Sequence[Document]) -> Retriever:
    """Make the retriever that a spec describes.

    Args:
        spec: A name, a mapping, or a ready retriever, which is returned as it is.
        documents: The corpus; an engine with documents of its own does not look at it.

    Raises:
        ConfigError: If there is no such retriever, or a setting is wrong.
        DatasetError: If the corpus uses an id twice, or is empty and the retriever needs one.
        MissingDependencyError: If the package it needs is not installed.
        RetrieverIndexError: If an index cannot be built or opened.
    """
    if isinstance(spec, str | Mapping):
        return retriever_settings(spec).build(documents)
    if not isinstance(spec, Retriever):
        raise ConfigError(
            f"a retriever is a name, a mapping, or has search() and fingerprint, got {type(spec).__name__}"
        )
    return spec

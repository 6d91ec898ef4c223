"""A setting over a few documents, for methods that are tested by what a scripted engine says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from search_agents.engines.base import SamplingParams
from search_agents.methods import Setting

from search_env import SearchQAVectorEnv
from search_env.datasets import Dataset
from search_env.retrieval.base import InMemoryRetriever
from search_env.types import Document, Question


class WatchedRetriever(InMemoryRetriever):
    """Keeps the queries that it was asked."""

    def __init__(self, documents: Sequence[Document]) -> None:
        super().__init__(documents)
        self.queries: list[str] = []

    def search(self, queries: Sequence[str], top_k: int) -> Any:
        self.queries += queries
        return super().search(queries, top_k)


@pytest.fixture
def make_setting() -> Callable[..., Setting]:
    """Builds a setting of an engine, (title, text) pairs and question texts; `env` has settings of the environment."""

    def build(
        engine: Any,
        pages: Sequence[tuple[str, str]],
        questions: Sequence[str] = ("Where is it?",),
        *,
        env: dict[str, Any] | None = None,
        **more: Any,
    ) -> Setting:
        documents = tuple(Document(id=str(n), title=title, text=text) for n, (title, text) in enumerate(pages))
        asked = tuple(Question(id=text, text=text, answers=("none of the methods reads this",)) for text in questions)
        dataset = Dataset(name="pages", split="dev", questions=asked, documents=documents)
        given: dict[str, Any] = {"dialect": "r1-searcher", "prompt": "base", "top_k": 2} | (env or {})
        made = SearchQAVectorEnv(2, dataset=dataset, retriever=WatchedRetriever(documents), **given)
        settings: dict[str, Any] = {"max_tokens": 20_000, "chat": False} | more
        return Setting(engine=engine, env=made, sampling=SamplingParams(max_tokens=400), **settings)

    return build

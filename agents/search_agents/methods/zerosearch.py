"""ZeroSearch: a policy whose search engine is a language model."""

from __future__ import annotations

import dataclasses
from typing import Annotated

from pydantic import Field

from search_agents.config.sections import Section
from search_agents.methods.base import Setting, env_like
from search_agents.methods.search_r1 import SearchR1
from search_agents.retrieval.simulate import SimulatedRetriever, SimulatedSettings

__all__ = ["ZeroSearch", "ZeroSearchOptions"]


class ZeroSearchOptions(Section):
    """Options of the method ``zerosearch``."""

    model: str | None = None
    """The model that plays the search engine: a folder or hub id; null takes the setting's own (the authors fine-tune
    one of 3 to 14 billion parameters for it)."""
    noise: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Probability that the documents of a query are noise; the curriculum belongs to training."""


class ZeroSearch(SearchR1):
    """ZeroSearch (Sun et al. 2025, arXiv 2505.04588): Search-R1's protocol, and a language model as search engine.

    No document of the corpus is read: the row says what a model makes of documents that a model made up. To train
    against such a search engine, or to use it with another method, name it as the retriever:
    ``--env.retriever '{name: simulated, model: …}'``.

    Calls: one a segment, and one a query by the search engine, which is not in the count of calls. Searches: one a
    query, at most the budget (the authors: 5 documents, 5 turns). The authors evaluate with a real search engine what
    they trained with a simulated one; for that, use ``search-r1``.
    """

    name = "zerosearch"
    Options = ZeroSearchOptions

    def __init__(self, setting: Setting, options: ZeroSearchOptions | None = None) -> None:
        options = options or ZeroSearchOptions()
        engine = setting.engine if options.model is None else None
        self._writer = options.model or setting.engine.name
        settings = SimulatedSettings(model=self._writer, noise=options.noise, seed=setting.seed)
        env = env_like(setting.env, retriever=SimulatedRetriever(settings, engine))
        super().__init__(dataclasses.replace(setting, env=env))

    @property
    def note(self) -> str:
        """See `StepwiseMethod.note`."""
        return f"its documents are written by {self._writer}; the corpus is not searched"

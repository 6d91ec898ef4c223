"""Search-R1: a policy that thinks before each action, played in its own dialect on the same questions and corpus."""

from __future__ import annotations

import dataclasses

from search_agents.methods.base import Setting, env_like
from search_agents.methods.r1_searcher import R1Searcher
from search_env.dialects import PromptStyle

__all__ = ["SearchR1"]

_DIALECT = "search-r1"


class SearchR1(R1Searcher):
    """Search-R1 (Jin et al. 2025, arXiv 2503.09516): the model in an environment with the dialect ``search-r1``.

    Questions, corpus, retriever, documents of one search and budgets are the setting's; only the tags, the rules of
    the format and what follows a malformed segment are Search-R1's. A model that was trained on another dialect
    (prompt style ``bare``) is told the rules in plain words, for it does not know them; a prompt file that is worded
    for another dialect is not used.

    Calls: one a segment; searches: one a query, at most the budget (the authors: 4 turns, 3 documents, 500 tokens a
    segment and a result). The reward, the mask of retrieved tokens and GRPO belong to training: see `search-env train`
    with ``--env.dialect search-r1``.
    """

    name = "search-r1"

    def __init__(self, setting: Setting) -> None:
        super().__init__(_in_its_dialect(setting))


def _in_its_dialect(setting: Setting) -> Setting:
    rules = setting.env.rules
    if rules.dialect.name == _DIALECT:
        return setting
    style = PromptStyle.BASE if rules.style is PromptStyle.BARE else rules.style
    return dataclasses.replace(setting, env=env_like(setting.env, dialect=_DIALECT, prompt=style.value))

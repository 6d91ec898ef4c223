"""Dialects: how a model's text becomes actions, and documents become text.

Every dialect is found here by its name; `Dialect` says what one is.
"""

from __future__ import annotations

from search_env.dialects.base import Dialect, PromptStyle
from search_env.dialects.inert import make_inert
from search_env.dialects.prompts import read_prompt_file, with_prompt
from search_env.dialects.r1_searcher import R1_SEARCHER, R1_SEARCHER_PIPES
from search_env.dialects.research import RESEARCH
from search_env.dialects.search_r1 import SEARCH_R1
from search_env.errors import ConfigError, unknown_name

__all__ = ["DIALECTS", "Dialect", "PromptStyle", "get_dialect", "make_inert", "read_prompt_file", "with_prompt"]

DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect for dialect in (R1_SEARCHER, R1_SEARCHER_PIPES, SEARCH_R1, RESEARCH)
}
"""Every dialect by its name."""


def get_dialect(name: str) -> Dialect:
    """Find a dialect.

    Args:
        name: One of `DIALECTS`.

    Returns:
        The dialect.

    Raises:
        ConfigError: If there is no dialect of that name.
    """
    if name not in DIALECTS:
        raise ConfigError(unknown_name("dialect", name, DIALECTS))
    return DIALECTS[name]

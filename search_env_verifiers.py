"""The name under which verifiers finds our plug-in; see `search_env.interop.verifiers`."""

from search_env.interop.verifiers import SearchEpisodes, SearchTaskset

__all__ = ["SearchEpisodes", "SearchTaskset"]

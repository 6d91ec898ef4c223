"""The command ``search-env``; see `search_agents.cli.command`."""

# Nothing else belongs here: the verbs `list` and `eval` are modules of this package and hide the built-ins in it.
from search_agents.cli.command import main

__all__ = ["main"]

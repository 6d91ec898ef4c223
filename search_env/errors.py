"""Every error this project raises on purpose.

The tree (each class also inherits the built-in it stands for)::

    SearchEnvError
    ├── ConfigError (ValueError)           a setting, flag or config key is wrong
    ├── DatasetError (ValueError)          a question set or corpus is missing or malformed
    ├── ModelError (ValueError)            a model folder cannot be used
    ├── EngineUnavailable (RuntimeError)   a server of a model failed for good; what was answered before is kept
    ├── MissingDependencyError (ImportError)  an optional package is not installed
    ├── PluginError (ImportError)          a package that adds an agent, retriever, dataset or reward is broken
    ├── RetrieverError (RuntimeError)
    │   ├── RetrieverIndexError            an index cannot be built or opened
    │   ├── PageUnavailable                a page cannot be read; its search goes on without (retrieval.online)
    │   │   └── BlockedURL                 its address is not allowed, or it is too large or too slow
    │   └── RetrieverUnavailable           the retriever failed for good; never a reward, never an observation
    ├── ProcessDied (RuntimeError)         a process of a training was killed again and again; what was saved is kept
    └── RunError (RuntimeError)            a run folder cannot be used or resumed

A message says what was given, what is allowed and what to type next. The command
line prints it without a traceback and exits with 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

__all__ = [
    "ConfigError",
    "DatasetError",
    "EngineUnavailable",
    "MissingDependencyError",
    "ModelError",
    "PluginError",
    "ProcessDied",
    "RetrieverError",
    "RetrieverIndexError",
    "RetrieverUnavailable",
    "RunError",
    "SearchEnvError",
    "pydantic_message",
    "unknown_name",
    "unknown_split",
    "wrong_settings",
]


class SearchEnvError(Exception):
    """Base of every error raised on purpose; its text is meant for the user."""


class ConfigError(SearchEnvError, ValueError):
    """A setting, a flag or a key of a config file is wrong."""


class DatasetError(SearchEnvError, ValueError):
    """A question set or corpus is missing or malformed; names file and line."""


class ModelError(SearchEnvError, ValueError):
    """A model folder or id cannot be used."""


class EngineUnavailable(SearchEnvError, RuntimeError):
    """A server of a model failed for good; what was answered before is kept."""


class MissingDependencyError(SearchEnvError, ImportError):
    """An optional package is not installed; the text holds the command that installs it."""


class PluginError(SearchEnvError, ImportError):
    """A package that adds an agent, retriever, dataset or reward is broken."""


class RetrieverError(SearchEnvError, RuntimeError):
    """The retriever cannot do what was asked."""


class RetrieverIndexError(RetrieverError):
    """An index cannot be built or opened."""


class RetrieverUnavailable(RetrieverError):
    """The retriever failed for good.

    An episode that meets it is invalid: masked in learning, not scored, run again.
    It is never turned into an observation and never into a reward of 0.

    Args:
        message: What failed, and what to do about it.
        transient: The same search may succeed in a moment: the service could not be reached, did not answer in time,
            or asked for patience. `ResilientRetriever` tries such a search again, and no other.
    """

    def __init__(self, message: str, *, transient: bool = False) -> None:
        super().__init__(message)
        self.transient = transient


class ProcessDied(SearchEnvError, RuntimeError):
    """A process of a training was killed again and again; what was saved before is kept."""


class RunError(SearchEnvError, RuntimeError):
    """A run folder cannot be used or resumed."""


def unknown_split(given: str, allowed: Iterable[str]) -> str:
    """Word the message for a split that a set does not have; see `unknown_name`."""
    return (
        f"{unknown_name('split', given, allowed)} Name one: split=… in Python; on the command line --split NAME or "
        "--evaluation.split NAME, or --stages.0.split NAME for the questions of a training's stage."
    )


def unknown_name(what: str, given: str, allowed: Iterable[str]) -> str:
    """Word the message for a name that is not in a set of names.

    Args:
        what: The kind of thing, for example ``"dialect"``.
        given: What the user wrote.
        allowed: Every name that exists.

    Returns:
        One sentence with the given name, the closest match and all allowed names.
    """
    names = sorted(map(str, allowed))
    close = difflib.get_close_matches(given, names, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    return f"unknown {what} {given!r}.{hint} Known: {', '.join(names)}."


def pydantic_message(message: str) -> str:
    """What pydantic says was wrong with a value, without the name that it gives to a validator's own words."""
    return message.removeprefix("Value error, ")


def wrong_settings(details: Iterable[Mapping[str, Any]], allowed: Iterable[str]) -> str:
    """Word what pydantic found wrong in the settings of a retriever or the options of a method.

    Args:
        details: Its `ValidationError.errors()`.
        allowed: Every setting that exists.

    Returns:
        The problems, with the closest setting of each unknown one.
    """
    names = list(allowed)
    problems = []
    for detail in details:
        text = pydantic_message(detail["msg"])
        if detail["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
            close = difflib.get_close_matches(str(detail["loc"][-1]), names, n=1)
            text += f" (did you mean {close[0]!r}?)" if close else ""
        problems.append(f"{'.'.join(map(str, detail['loc']))}: {text}")
    return f"{'; '.join(problems)}."

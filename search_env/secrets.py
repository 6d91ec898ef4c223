"""Keys and passwords: settings hold the names of environment variables, and no text that is shown holds a value.

A server may repeat the key it was sent in its error, and a proxy the whole request; so
what others say is masked before it is cut and shown.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

__all__ = ["VariableName", "masked", "shown_cause"]

VariableName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
"""The name of an environment variable; a key that was written in its place is seldom one, and is refused."""


def masked(text: str, *secrets: str | None) -> str:
    """A text with ``***`` for every secret in it.

    Args:
        text: Any text.
        secrets: What nobody may read; None and empty ones count for nothing.

    Example:
        >>> masked("the key 4711 is not valid", "4711", None)
        'the key *** is not valid'
    """
    for secret in filter(None, secrets):
        text = text.replace(secret, "***")
    return text


def shown_cause(error: Exception, *secrets: str | None) -> Exception | None:
    """The error as the cause of another one; None if a traceback of it would show a secret.

    Args:
        error: What a library raised.
        secrets: What nobody may read.
    """
    told = f"{error}{error!r}{error.__cause__}{error.__context__}"
    return error if masked(told, *secrets) == told else None

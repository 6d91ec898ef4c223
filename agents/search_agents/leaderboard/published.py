"""Scores that a paper printed: shown beside rows of our own, never among them."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from search_agents.config.load import read_yaml
from search_env.errors import ConfigError

__all__ = ["Published", "PublishedRow", "PublishedSet", "read_published"]

_SHIPPED = Path(__file__).with_name("published.yaml")


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PublishedSet(_Part):
    """A set of questions as the paper names it."""

    environment: str
    """Registered id of our environment on it."""
    name: str


class PublishedRow(_Part):
    """One printed row."""

    agent: str
    model: str
    by: str
    """Key of the protocol that it was measured with."""
    scores: dict[str, tuple[float, float | None]]
    """ACC_R and ACC_L in percent, by the key of the set; None where no ACC_L was printed."""


class Published(_Part):
    """A published table."""

    source: str
    sets: dict[str, PublishedSet]
    protocols: dict[str, str]
    """How each block of rows was measured."""
    notes: tuple[str, ...]
    """What a reader must know before comparing."""
    rows: tuple[PublishedRow, ...]

    def of(self, key: str) -> list[PublishedRow]:
        """The rows that hold scores of a set."""
        return [row for row in self.rows if key in row.scores]


def read_published(file: Path = _SHIPPED) -> Published:
    """Read a published table.

    Raises:
        ConfigError: If the file is none; names it.
    """
    try:
        return Published.model_validate(read_yaml(file))
    except ValidationError as error:
        raise ConfigError(f"{file}: is no published table: {error}") from None

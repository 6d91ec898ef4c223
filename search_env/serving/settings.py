"""What a server accepts, and how it gathers requests."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, NonNegativeFloat, PositiveInt, model_validator

__all__ = ["ServerSettings"]


class ServerSettings(BaseModel):
    """Limits and batching of a server; a request beyond a limit is refused, never cut."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, validate_default=True)

    default_top_k: PositiveInt = 3
    """Documents for each query where a request does not say."""
    max_top_k: PositiveInt = 100
    """Most documents for each query that a request may ask for."""
    max_queries: PositiveInt = 1024
    """Most queries of one request."""
    max_query_chars: PositiveInt = 32_768
    """Most characters of one query."""
    max_body_bytes: PositiveInt = 16 * 2**20
    """Most bytes of one request."""
    max_waiting: PositiveInt = 4096
    """Most queries that may wait for a search; beyond that, requests are answered with 503."""
    batch_size: PositiveInt = 256
    """Queries that requests are gathered up to for one search."""
    batch_wait_ms: NonNegativeFloat = 2.0
    """Milliseconds that a request waits for others to be searched with it."""

    @model_validator(mode="after")
    def _fit_together(self) -> ServerSettings:
        if self.default_top_k > self.max_top_k:
            raise ValueError(f"default_top_k ({self.default_top_k}) must not exceed max_top_k ({self.max_top_k})")
        if self.max_queries > self.max_waiting:
            raise ValueError(f"max_queries ({self.max_queries}) must not exceed max_waiting ({self.max_waiting})")
        return self

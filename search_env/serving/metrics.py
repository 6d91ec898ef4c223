"""What a server counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["CONTENT_TYPE_LATEST", "Metrics"]

_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """The counters of one server; several servers of a process do not share them.

    Args:
        waiting: Tells how many queries wait.
    """

    def __init__(self, waiting: Callable[[], int]) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter("search_env_requests", "Requests answered.", ["path", "status"], registry=registry)
        self.request_seconds = Histogram(
            "search_env_request_seconds", "Time from a request to its answer.", ["path"], registry=registry
        )
        self.batch_queries = Histogram(
            "search_env_batch_queries", "Queries of one search.", buckets=_SIZES, registry=registry
        )
        self.search_seconds = Histogram("search_env_search_seconds", "Time of one search.", registry=registry)
        self.search_failures = Counter("search_env_search_failures", "Searches that failed.", registry=registry)
        Gauge("search_env_waiting_queries", "Queries that wait for a search.", registry=registry).set_function(waiting)

    def text(self) -> bytes:
        """All of it, in the text format of Prometheus."""
        return generate_latest(self._registry)

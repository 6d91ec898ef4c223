"""``search-env serve`` from light load to more than it can hold, and back.

Each phase is a closed loop: every worker asks again as soon as it is answered, or refused.
More queries than the server lets wait are refused at once with 503 and ``Retry-After``, so
those that it took stay as fast as its queue is long.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.faults.serving import Phase, under_load
from benchmarks.scaling.load import Load, Workload, drive
from search_env.errors import RetrieverUnavailable
from search_env.retrieval.http import HTTPRetriever, HTTPSettings
from search_env.types import Hit

__all__ = ["PHASES", "Refused", "overload"]

PHASES = (
    Phase("light", 1, 64),
    Phase("saturation", 8, 128),
    Phase("overload", 48, 256),
    Phase("light again", 1, 64),
)
"""At overload 12,288 queries are asked at once, and the server lets 4,096 wait."""


class Refused(Exception):
    """The server said that it has no room."""


class _Asking:
    """The client, telling a refusal for want of room from every other failure."""

    def __init__(self, client: HTTPRetriever) -> None:
        self._client = client
        self.failures: list[str] = []
        """What else went wrong, in the words of the error."""

    @property
    def fingerprint(self) -> str:
        return self._client.fingerprint

    def search(self, queries: Sequence[str], top_k: int) -> list[tuple[Hit, ...]]:
        try:
            return self._client.search(queries, top_k)
        except Exception as error:
            if isinstance(error, RetrieverUnavailable) and "status 503" in str(error):
                raise Refused from error
            self.failures.append(f"{type(error).__name__}: {error}")
            raise


def overload(folder: Path, *, seconds: float = 5.0, phases: Sequence[Phase] = PHASES) -> dict[str, Any]:
    """Put every load on the server, one after the other, by our own client.

    Args:
        folder: Where the corpus is written.
        seconds: How long each load lasts.
        phases: The loads.

    Returns:
        A row for each phase, and the server's resident memory before and after.

    Raises:
        AssertionError: If the server crashed, or does not answer when a load is gone.
    """

    def put(address: str, phase: Phase, questions: Sequence[str]) -> dict[str, Any]:
        client = HTTPRetriever(HTTPSettings(url=address, batch_size=phase.batch))
        # Equal queries of a request are sent once: few are, so that it is as large as it says.
        asked = [f"{text} {number}" for number in range(20) for text in questions]
        asking = _Asking(client)
        workload = Workload(questions=asked, zipf=0, batch=phase.batch)
        found = drive(asking, workload, workers=phase.connections, seconds=seconds)
        client.close()
        return _figures(found, asking.failures)

    return under_load(folder, phases, put)


def _figures(found: Load, failures: Sequence[str]) -> dict[str, Any]:
    refused = found.errors.get(Refused.__name__, 0)
    # Each run has a port of its own.
    told = Counter(re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:PORT", failure) for failure in failures)
    return {
        "requests": found.searches,
        "answered": found.searches - sum(found.errors.values()),
        "refused_503": refused,
        "other_failures": sum(found.errors.values()) - refused,
        "errors": dict(told),
        "queries_per_second": round(found.queries_per_second, 1),
        "p50_ms": round(found.percentile(50), 1),
        "p95_ms": round(found.percentile(95), 1),
    }

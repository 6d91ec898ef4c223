"""The web application: addresses, answers and errors; see `search_env.serving` for what it offers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from search_env.errors import RetrieverUnavailable
from search_env.retrieval.base import Retriever
from search_env.retrieval.search_r1 import write_results
from search_env.serving.batching import Batcher, OverloadedError
from search_env.serving.messages import RetrieveRequest, SearchRequest, check, parse
from search_env.serving.metrics import CONTENT_TYPE_LATEST, Metrics
from search_env.serving.settings import ServerSettings
from search_env.types import Hit

__all__ = ["create_app"]

Endpoint = Callable[[Request], Awaitable[Response]]

_RETRY_AFTER = {"Retry-After": "1"}


def create_app(retriever: Retriever, settings: ServerSettings, hosts: Sequence[str]) -> Starlette:
    """The application that offers a retriever.

    Args:
        retriever: What searches.
        settings: Limits and batching.
        hosts: Names by which clients may call the server; a request to any other is refused.
    """
    service = _Service(retriever, settings)
    return Starlette(
        routes=[
            Route("/retrieve", service.counted(service.retrieve), methods=["POST"]),
            Route("/v1/search", service.counted(service.search), methods=["POST"]),
            Route("/v1/info", service.info),
            Route("/healthz", service.health),
            Route("/metrics", service.metrics_text),
        ],
        # A web page whose name was made to point here (DNS rebinding) still calls the server by its own name.
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)],
        exception_handlers={HTTPException: _refused, Exception: _failed},
        lifespan=service.lifespan,
    )


class _JSON(JSONResponse):
    """JSON in ASCII: any text of a document can be written that way."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


class _Service:
    """The endpoints over one retriever."""

    def __init__(self, retriever: Retriever, settings: ServerSettings) -> None:
        self._retriever, self._settings = retriever, settings
        self._fingerprint = retriever.fingerprint
        self._batcher = Batcher(
            self._search, size=settings.batch_size, wait=settings.batch_wait_ms / 1000, room=settings.max_waiting
        )
        self._metrics = Metrics(lambda: self._batcher.waiting)

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Search as long as the server runs."""
        running = asyncio.create_task(self._batcher.run())
        try:
            yield
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running

    async def retrieve(self, request: Request) -> Response:
        """Search-R1's API."""
        asked = await parse(request, RetrieveRequest, self._settings)
        results = await self._found(asked.queries, asked.topk or self._settings.default_top_k)
        return _JSON(write_results(results, scores=asked.return_scores))

    async def search(self, request: Request) -> Response:
        """Our own API."""
        asked = await parse(request, SearchRequest, self._settings)
        top_k = self._settings.default_top_k if asked.top_k is None else asked.top_k
        results = await self._found(asked.queries, top_k)
        return _JSON({"results": [[_written(hit) for hit in hits] for hits in results]})

    async def info(self, request: Request) -> Response:
        """What is searched, and the limits."""
        return _JSON({"fingerprint": self._fingerprint, "settings": self._settings.model_dump()})

    async def health(self, request: Request) -> Response:
        """Whether the server answers; whether its searches go well is told by the metrics."""
        return _JSON({"status": "ok"})

    async def metrics_text(self, request: Request) -> Response:
        """The counters."""
        return Response(self._metrics.text(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    def counted(self, endpoint: Endpoint) -> Endpoint:
        """The endpoint with its answers, also the refusals, made and counted."""

        async def answer(request: Request) -> Response:
            start, path = time.perf_counter(), request.url.path
            status = 500
            try:
                response = await _answered(endpoint, request)
                status = response.status_code
                return response
            finally:
                self._metrics.requests.labels(path, status).inc()
                self._metrics.request_seconds.labels(path).observe(time.perf_counter() - start)

        return answer

    async def _found(self, queries: Sequence[str], top_k: int) -> list[tuple[Hit, ...]]:
        check(queries, top_k, self._settings)
        return await self._batcher.search(queries, top_k) if queries else []

    def _search(self, queries: Sequence[str], top_k: int) -> list[tuple[Hit, ...]]:
        self._metrics.batch_queries.observe(len(queries))
        with self._metrics.search_seconds.time(), self._metrics.search_failures.count_exceptions():
            return self._retriever.search(queries, top_k)


async def _answered(endpoint: Endpoint, request: Request) -> Response:
    try:
        return await endpoint(request)
    except HTTPException as refusal:
        return await _refused(request, refusal)
    except OverloadedError:
        return _problem(503, "too many queries are waiting; try again in a moment", _RETRY_AFTER)
    except RetrieverUnavailable as error:
        return _problem(503, f"the retriever is unavailable: {error}", _RETRY_AFTER if error.transient else None)
    except ClientDisconnect:
        return _problem(400, "the client left before its request was complete")


def _written(hit: Hit) -> dict[str, Any]:
    document = hit.document
    return {"id": document.id, "title": document.title, "text": document.text, "score": hit.score}


def _problem(status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    return _JSON({"detail": detail}, status_code=status, headers=headers)


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _JSON({"detail": error.detail}, status_code=error.status_code, headers=error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    # The traceback goes to the server's log, not to the client.
    return _problem(500, "the server failed; its log tells why")

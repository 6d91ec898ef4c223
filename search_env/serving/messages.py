"""The requests that a server accepts: parsed, and held against its limits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request

from search_env.retrieval.search_r1 import first_problem
from search_env.serving.settings import ServerSettings

__all__ = ["RetrieveRequest", "SearchRequest", "check", "parse"]


def _encodable(value: Any) -> Any:
    # JSON can spell half a surrogate pair; no engine can read it.
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


Query = Annotated[str, BeforeValidator(_encodable)]


class RetrieveRequest(BaseModel):
    """Search-R1's request; as there, keys that it does not know do not count."""

    queries: list[Query]
    topk: int | None = None
    return_scores: bool = False


class SearchRequest(BaseModel):
    """The request of our own API."""

    model_config = ConfigDict(extra="forbid")

    queries: list[Query]
    top_k: int | None = None


Message = TypeVar("Message", bound=BaseModel)


async def parse(request: Request, message: type[Message], settings: ServerSettings) -> Message:
    """Read the body of a request.

    Raises:
        HTTPException: 415, 413 or 422 if it is not JSON, too large, or not of the message's shape.
    """
    # A web page may post plain text to any address, but JSON only where it is allowed to.
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HTTPException(415, f"the body must be JSON; send it with Content-Type: application/json, not {kind!r}")
    body = await _body(request, settings.max_body_bytes)
    try:
        return message.model_validate(json.loads(body))
    except ValidationError as error:
        raise HTTPException(422, first_problem(error)) from error
    except (ValueError, RecursionError) as error:
        raise HTTPException(422, f"the body is not JSON: {error}") from error


async def _body(request: Request, limit: int) -> bytes:
    too_large = HTTPException(413, f"the body is larger than {limit} bytes; send the queries in parts")
    # The announced length answers at once what reading would find out.
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced) > limit:
        raise too_large
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > limit:
            raise too_large
    return bytes(body)


def check(queries: Sequence[str], top_k: int, settings: ServerSettings) -> None:
    """Hold a request against the limits of the server.

    Raises:
        HTTPException: 413 or 422 if it is beyond one.
    """
    if len(queries) > settings.max_queries:
        raise HTTPException(
            413, f"queries holds {len(queries)} texts, at most {settings.max_queries} are allowed; send them in parts"
        )
    for number, query in enumerate(queries):
        if len(query) > settings.max_query_chars:
            raise HTTPException(
                413,
                f"queries.{number} has {len(query)} characters, at most {settings.max_query_chars} are allowed; cut it",
            )
    if not 1 <= top_k <= settings.max_top_k:
        raise HTTPException(
            422, f"{top_k} documents for each query are asked for, 1 to {settings.max_top_k} are allowed"
        )

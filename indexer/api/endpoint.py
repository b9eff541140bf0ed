"""An endpoint: one declaration that routing, validation and OpenAPI share."""

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Annotated, Any, NamedTuple, get_origin, get_type_hints
from urllib.parse import unquote

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from indexer.api.error import ApiError, unavailable
from indexer.service import Service
from rheos import metrics
from rheos.ids import id_problem

MAX_BODY_BYTES = 4 * 1024 * 1024  # 1,000 events of 4 kB
BODY_TIMEOUT_S = 10

Html = Annotated[str, msgspec.Meta(description="A page of HTML.")]

encode_json = msgspec.json.Encoder().encode


class NoQuery(msgspec.Struct, forbid_unknown_fields=True):
    """An endpoint without query parameters."""


class Call(NamedTuple):
    """A checked request. ``ids`` are the path's, ``query`` is of the endpoint's query type."""

    service: Service
    ids: Mapping[str, str]
    query: Any
    body: bytes


class Endpoint(NamedTuple):
    """``body`` and ``answers`` are types, for the schema; handlers decode bodies themselves."""

    method: str
    path: str
    handler: Callable[[Call], Awaitable[Response]]
    summary: str
    answers: Mapping[int, Any]
    query: type[msgspec.Struct] = NoQuery
    body: Any = None
    needs_ready: bool = False


def json_response(value: object, status: int = 200) -> Response:
    return Response(encode_json(value), status, media_type="application/json")


async def serve(service: Service, endpoint: Endpoint, request: Request) -> Response:
    """One request: validate, handle, measure. Raises ApiError."""
    began = time.perf_counter()
    status = "500"
    try:
        response = await _answer(service, endpoint, request)
        status = str(response.status_code)
        return response
    except ApiError as error:
        status = str(error.status)
        raise
    finally:
        took = time.perf_counter() - began
        metrics.REQUEST_SECONDS.labels(endpoint.path, status).observe(took)


async def _answer(service: Service, endpoint: Endpoint, request: Request) -> Response:
    ids = {name: _path_id(name, value) for name, value in request.path_params.items()}
    query = _query(endpoint.query, request)
    body = b"" if endpoint.body is None else await _body(request)
    if endpoint.needs_ready and (problem := service.not_ready()):
        raise unavailable("not_ready", problem)
    return await endpoint.handler(Call(service, ids, query, body))


def _path_id(name: str, quoted: str) -> str:
    """An id of the path, which is matched before it is unquoted: an id may hold a slash."""
    try:
        value = unquote(quoted, errors="strict")
    except UnicodeDecodeError:
        raise ApiError(422, "invalid_id", f"{name} {quoted[:80]!r}: not_unicode") from None
    return checked_id(name, value)


def checked_id(name: str, value: str) -> str:
    """The id itself. Raises ApiError 422."""
    problem = id_problem(value)
    if problem:
        raise ApiError(422, "invalid_id", f"{name} {value[:80]!r}: {problem}")
    return value


@functools.cache
def _hints(kind: type[msgspec.Struct]) -> dict[str, Any]:
    return get_type_hints(kind)


def _query(kind: type[msgspec.Struct], request: Request) -> msgspec.Struct:
    """The query parameters; lists are repeated ones. Raises ApiError 422, also for unknown ones."""
    hints = _hints(kind)
    given: dict[str, Any] = {}
    for name, value in request.query_params.multi_items():
        if name not in hints:
            known = ", ".join(hints) or "none"
            raise ApiError(422, "invalid_query", f"no parameter {name[:80]!r}; known: {known}")
        if get_origin(hints[name]) is list:
            given.setdefault(name, []).append(value)
        elif name in given:
            raise ApiError(422, "invalid_query", f"parameter {name} stands twice")
        else:
            given[name] = value
    try:
        return msgspec.convert(given, kind, strict=False)
    except msgspec.ValidationError as error:
        raise ApiError(422, "invalid_query", str(error)) from None


async def _body(request: Request) -> bytes:
    """The body, at most MAX_BODY_BYTES of it. Raises ApiError 413 or 408."""
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > MAX_BODY_BYTES:
        raise _too_large()
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for part in request.stream():
                size += len(part)
                if size > MAX_BODY_BYTES:
                    raise _too_large()
                parts.append(part)
    except TimeoutError:
        raise ApiError(408, "timeout", f"no whole body within {BODY_TIMEOUT_S} s") from None
    except ClientDisconnect:
        raise ApiError(400, "bad_request", "the client went away") from None
    return b"".join(parts)


def _too_large() -> ApiError:
    return ApiError(413, "too_large", f"a body has at most {MAX_BODY_BYTES} bytes")


def decoded(body: bytes, kind: Any) -> Any:
    """A JSON body as ``kind``. Raises ApiError: 400 for no JSON, 422 for another shape."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as error:
        raise ApiError(422, "invalid_body", str(error)) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(400, "not_json", str(error)) from None

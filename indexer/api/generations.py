"""What was found out about a generation when it was made: the report in its snapshot."""

import asyncio
from typing import Any

from starlette.responses import Response

from indexer.api.endpoint import Call, Endpoint, Html
from indexer.api.error import ApiError, ErrorAnswer
from rheos.snapshot import SnapshotError
from rheos.snapshot_store import LocalStore

_PAGE_HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}


async def report(call: Call) -> Response:
    return Response(await _extra(call, "report.json"), media_type="application/json")


async def report_page(call: Call) -> Response:
    return Response(await _extra(call, "report.html"), 200, _PAGE_HEADERS, "text/html")


async def _extra(call: Call, file: str) -> bytes:
    """A verified file of a stored generation. Raises ApiError 404."""
    store = LocalStore(call.service.settings.store_dir)
    try:
        return await asyncio.to_thread(store.extra, call.ids["name"], file)
    except SnapshotError as error:
        raise ApiError(404, "not_found", str(error)) from None


ENDPOINTS = [
    Endpoint(
        "GET",
        "/v1/generations/{name}/report",
        report,
        "How good a stored generation was found to be, with intervals.",
        {200: dict[str, Any], 404: ErrorAnswer, 422: ErrorAnswer},
    ),
    Endpoint(
        "GET",
        "/v1/generations/{name}/report.html",
        report_page,
        "The same as one page for people.",
        {200: Html, 404: ErrorAnswer, 422: ErrorAnswer},
    ),
]

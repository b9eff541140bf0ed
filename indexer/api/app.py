"""The application: routes of all resources, the page, and one lifespan for every resource."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import groupby
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from indexer.api import docs, events, generations, items, openapi, recommendations, status, users
from indexer.api.admission import Admission
from indexer.api.endpoint import Call, Endpoint, json_response, serve
from indexer.api.error import ApiError, on_api_error, on_crash, on_http_error
from indexer.service import Service
from rheos.settings import Settings

PAGE = Path(__file__).parent.parent / "page"
_PAGE_HEADERS = {"Content-Security-Policy": "default-src 'self'", "Cache-Control": "no-cache"}


def create_app(settings: Settings) -> Starlette:
    """The ASGI application. Its lifespan opens and closes the service: ``app.state.service``."""
    service = Service(settings)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            await asyncio.to_thread(service.close)

    app = Starlette(
        routes=_routes(service),
        lifespan=lifespan,
        middleware=[Middleware(Admission, most=settings.indexer.max_concurrent)],
        exception_handlers={
            ApiError: on_api_error,
            HTTPException: on_http_error,
            Exception: on_crash,
        },
    )
    app.state.service = service
    app.router.redirect_slashes = False
    return app


def endpoints() -> list[Endpoint]:
    """All endpoints but the documents about them."""
    return [
        *recommendations.ENDPOINTS,
        *events.ENDPOINTS,
        *items.ENDPOINTS,
        *users.ENDPOINTS,
        *generations.ENDPOINTS,
        *status.ENDPOINTS,
    ]


def _routes(service: Service) -> list[BaseRoute]:
    described = openapi.document(endpoints(), service.settings.indexer.max_k)
    page = docs.page(described)

    async def show_document(call: Call) -> Response:
        return json_response(described)

    async def show_docs(call: Call) -> Response:
        return HTMLResponse(page)

    every = [
        *endpoints(),
        Endpoint("GET", "/openapi.json", show_document, "This interface, for programs.", {}),
        Endpoint("GET", "/docs", show_docs, "This interface, for people.", {}),
    ]
    every.sort(key=lambda endpoint: endpoint.path)  # stable, for groupby
    routes: list[BaseRoute] = [
        _route(service, path, list(group))
        for path, group in groupby(every, key=lambda endpoint: endpoint.path)
    ]

    async def show_page(request: Request) -> Response:
        return FileResponse(PAGE / "index.html", headers=_PAGE_HEADERS)

    return [
        *routes,
        Route("/", show_page),
        Mount("/page", _PageFiles(directory=PAGE), name="page"),
    ]


class _PageFiles(StaticFiles):
    """The page's files, asked for again each time: an upgrade never mixes old and new modules."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = _PAGE_HEADERS["Cache-Control"]
        return response


def _route(service: Service, path: str, group: list[Endpoint]) -> Route:
    """One route per path, so that 405 names all of its methods."""
    by_method = {endpoint.method: endpoint for endpoint in group}
    if "GET" in by_method:
        by_method["HEAD"] = by_method["GET"]

    async def handle(request: Request) -> Response:
        return await serve(service, by_method[request.method], request)

    handler: Callable[[Request], Awaitable[Response]] = handle
    return Route(path, handler, methods=list(by_method))

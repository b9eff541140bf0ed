"""Who gets in: the outermost layer. Overload is answered early, never by a growing queue."""

from starlette.types import ASGIApp, Receive, Scope, Send

from indexer.api.error import unavailable

ALWAYS = ("/healthz", "/readyz", "/metrics")


class Admission:
    """Answers 503 with Retry-After beyond ``most`` requests in work; probes always get in.

    It also makes routing see paths as they were sent: an id may hold an escaped slash.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most
        self._in_work = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if "raw_path" in scope:
            scope = {**scope, "path": scope["raw_path"].decode("latin-1")}
        if scope["path"] in ALWAYS:
            await self._app(scope, receive, send)
            return
        if self._in_work >= self._most:
            error = unavailable("busy", f"{self._most} requests are in work; try again")
            await error.response()(scope, receive, send)
            return
        self._in_work += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._in_work -= 1

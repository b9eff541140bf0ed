"""The one shape of every error answer."""

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

_CODES = {400: "bad_request", 404: "not_found", 405: "method_not_allowed", 500: "internal"}


class ErrorBody(msgspec.Struct, kw_only=True, omit_defaults=True):
    """``code`` is for programs, ``message`` for people. Of several records ``index`` names the
    refused one (from 0), and ``reason`` why.
    """

    code: str
    message: str
    index: int | None = None
    reason: str | None = None


class ErrorAnswer(msgspec.Struct, kw_only=True):
    error: ErrorBody


class ApiError(Exception):
    """An answer that is no success; raised anywhere below a handler."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        index: int | None = None,
        reason: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = ErrorBody(code=code, message=message, index=index, reason=reason)
        self.retry_after_s = retry_after_s

    def response(self) -> Response:
        headers = {}
        if self.retry_after_s is not None:
            headers["Retry-After"] = str(self.retry_after_s)
        return Response(
            msgspec.json.encode(ErrorAnswer(error=self.body)),
            self.status,
            headers,
            "application/json",
        )


def unavailable(code: str, message: str) -> ApiError:
    """Try again in a second."""
    return ApiError(503, code, message, retry_after_s=1)


async def on_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response()


async def on_http_error(request: Request, error: Exception) -> Response:
    """What routing itself refuses: unknown paths and methods."""
    assert isinstance(error, HTTPException)
    code = _CODES.get(error.status_code, "refused")
    response = ApiError(error.status_code, code, f"{request.url.path}: {error.detail}").response()
    response.headers.update(error.headers or {})
    return response


async def on_crash(request: Request, error: Exception) -> Response:
    """An error of ours; the server logs it with its traceback."""
    return ApiError(500, _CODES[500], "an internal error; it is in the indexer's log").response()

"""A small client of the HTTP API, for the command line and for scripts."""

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any
from urllib.parse import quote

import httpx

TIMEOUT_S = 10.0


class ApiError(RuntimeError):
    """The API refused or failed; ``status`` is HTTP's (0: no answer), ``code`` the API's own."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


class Client:
    """Asks the API at ``url``. Every method blocks and raises ApiError. Close it, or use `with`."""

    def __init__(self, url: str, timeout_s: float = TIMEOUT_S) -> None:
        self.url = url.rstrip("/")
        # No proxies from the environment: the API is nearby, or ``url`` says where.
        self._http = httpx.Client(base_url=self.url, timeout=timeout_s, trust_env=False)

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._http.close()

    def recommendations(
        self,
        user_id: str,
        k: int = 10,
        *,
        category: str = "",
        exclude: Sequence[str] = (),
        explain: bool = False,
    ) -> dict[str, Any]:
        """The answer for a user: generation, as_of and ``items``, best first."""
        query: dict[str, Any] = {"k": k}
        if category:
            query["category"] = category
        if exclude:
            query["exclude"] = list(exclude)
        if explain:
            query["explain"] = "true"
        return self._get(f"/v1/users/{_segment(user_id)}/recommendations", query)

    def similar(self, item_id: str, k: int = 10) -> dict[str, Any]:
        """The items most like an item, best first."""
        return self._get(f"/v1/items/{_segment(item_id)}/similar", {"k": k})

    def status(self) -> dict[str, Any]:
        """What the indexer serves and how far it has read."""
        return self._get("/v1/status", {})

    def send(self, events: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Writes events (1 to 1,000) to Kafka; where each of them stands there."""
        return self._ask("POST", "/v1/events", json=[dict(event) for event in events])

    def _get(self, path: str, query: Mapping[str, Any]) -> dict[str, Any]:
        return self._ask("GET", path, params=query)

    def _ask(self, method: str, path: str, **rest: Any) -> dict[str, Any]:
        try:
            response = self._http.request(method, path, **rest)
        except (httpx.TransportError, httpx.InvalidURL) as error:
            raise ApiError(
                0,
                "unreachable",
                f"the API at {self.url} does not answer ({error}); rheos indexer or rheos up"
                " starts it",
            ) from None
        try:
            body = response.json()
        except ValueError:
            body = None
        if response.is_success and isinstance(body, dict):
            return body
        refusal = body.get("error") if isinstance(body, dict) else None
        if isinstance(refusal, dict):
            raise ApiError(
                response.status_code, str(refusal.get("code")), str(refusal.get("message"))
            )
        raise ApiError(
            response.status_code,
            "not_the_api",
            f"{self.url}{path} answered {response.status_code} and not as the API does; is it"
            " something else that listens there?",
        )


def _segment(text: str) -> str:
    """An id as one segment of a path; a bare dot segment would be resolved away."""
    return quote(text, safe="").replace(".", "%2E")

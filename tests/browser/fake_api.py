"""A stand-in for the HTTP API that tests can bend: not ready, away, slow, hostile titles.

It keeps the contract of the real one for what the page asks, and no more. The page against the
real stream worker and indexer is test_page_live.py.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.broker import free_ports

PAGE = Path(__file__).resolve().parents[2] / "indexer" / "page"
NOT_READY = "reading the topics: 12000 messages to go"
START_MS = 1_760_000_000_000
TITLES = (
    "Enamel kettle, forest green",
    "Linen tea towel, set of two",
    "Stoneware mug, speckled",
    "Copper measuring cups",
    "Beeswax candle, tall",
    "Brass candle holder",
    "Storm lantern",
    "Paper star, large",
    "String of paper lights",
    "Wool throw, herringbone",
    "Felt slippers, grey",
    "Hot water bottle with knitted cover",
    "Seed tin, twelve drawers",
    "Garden twine in a tin",
    "Zinc watering can",
    "Wooden bird house",
    "Picnic basket for four",
    "Jam jar labels, pack of 100",
    "Cake stand, three tiers",
    "Biscuit cutters, woodland animals",
    "Recipe box with dividers",
    "Chalkboard, small",
    "Letter rack, oak",
    "Pocket notebook, dotted",
)


class FakeApi:
    """State of the fake, set by tests between requests; served by `serve`."""

    def __init__(self) -> None:
        self.titles = {f"{21_000 + n}": title for n, title in enumerate(TITLES)}
        self.histories: dict[str, list[dict[str, Any]]] = {}
        self.offsets: dict[str, int] = {}
        self.posted: list[dict[str, Any]] = []
        self.asked: list[str] = []
        self.generation: str | None = "3-91c0ab12"
        self.generation_created_ms = int(time.time() * 1000) - 260_000
        self.has_report = False
        self.fit: dict[str, Any] | None = None
        self.ready = True
        self.is_empty = False
        self.stream_delay_s = 0.03
        self.is_stream_held = False  # until `release_stream`
        self._unfolded: list[tuple[str, str, str, int, int]] = []
        self.refuse_events = False
        self.lag_messages = 0
        self.stream_now_ms: int | None = None  # the wall clock rules without it
        self.is_busy = False
        for user, taken in {"17850": (2, 9, 4), "13047": (7, 5), "12583": (18, 19, 20)}.items():
            for hour, row in enumerate(taken):
                kind = "purchase" if hour % 2 else "click"
                self._fold(
                    user, list(self.titles)[row], kind, START_MS + hour * 3_600_000, 100 + hour
                )

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/", self.page),
                Mount("/page", StaticFiles(directory=PAGE)),
                Route("/v1/status", self.status),
                Route("/v1/users", self.users),
                Route("/v1/users/{user_id:path}/recommendations", self.recommendations),
                Route("/v1/users/{user_id:path}", self.user),
                Route("/v1/items", self.items),
                Route("/v1/events", self.post_event, methods=["POST"]),
            ],
            middleware=[Middleware(_StrictPolicy)],
        )

    async def page(self, request: Request) -> Response:
        return FileResponse(PAGE / "index.html")

    async def status(self, request: Request) -> Response:
        serving = self.generation and {
            "name": self.generation,
            "model": "als",
            "created_ms": self.generation_created_ms,
            "report": self.has_report,
        }
        return JSONResponse(
            {
                "not_ready": None if self.ready else NOT_READY,
                "now_ms": self.stream_now_ms or int(time.time() * 1000),
                "events_accepted": sum(len(events) for events in self.histories.values()),
                "clock": "stream" if self.stream_now_ms else "wall",
                "generation": serving,
                "fit": self.fit,
                "view": {
                    "users": len(self.histories),
                    "lag_messages": {"t.user-state": self.lag_messages},
                },
            }
        )

    async def users(self, request: Request) -> Response:
        limit = int(request.query_params.get("limit", "20"))
        users = [
            {"user_id": user, "accepted": len(history)} for user, history in self.histories.items()
        ]
        return JSONResponse({"users": users[:limit]})

    async def user(self, request: Request) -> Response:
        user_id = request.path_params["user_id"]
        if not self.ready:
            return _not_ready()
        if user_id not in self.histories:
            return _error(404, "not_found", f"user {user_id!r} is not known")
        history = [
            {**entry, "title": self.titles.get(entry["item_id"])}
            for entry in reversed(self.histories[user_id])
        ]
        return JSONResponse(
            {
                "user_id": user_id,
                "history": history,
                "as_of": self._as_of(user_id),
                "accepted": len(history),
                "duplicates": 0,
            }
        )

    async def recommendations(self, request: Request) -> Response:
        user_id = request.path_params["user_id"]
        self.asked.append(user_id)
        if self.is_busy:
            return _error(503, "busy", "256 requests are in work; try again")
        if not self.ready:
            return _not_ready()
        k = int(request.query_params["k"])
        return JSONResponse(
            {
                "user_id": user_id,
                "generation": self.generation,
                "request_id": f"r{len(self.asked)}",
                "as_of": self._as_of(user_id),
                "items": self._ranked(user_id)[:k],
            }
        )

    async def items(self, request: Request) -> Response:
        query = request.query_params["query"].lower()
        found = [
            {"item_id": item, "title": title, "price": 1.25 + row, "available": row % 5 > 0}
            for row, (item, title) in enumerate(self.titles.items())
            if query in title.lower() or query == item
        ]
        return JSONResponse({"items": found[: int(request.query_params["limit"])]})

    async def post_event(self, request: Request) -> Response:
        event = await request.json()
        if self.refuse_events:
            return _error(503, "kafka_away", "Kafka did not acknowledge")
        self.posted.append(event)
        user = event["user_id"]
        offset = self.offsets[user] = self.offsets.get(user, 6_000) + 1
        record = (user, event["item_id"], event["type"], int(time.time() * 1000), offset)
        if self.is_stream_held:
            self._unfolded.append(record)
        else:
            asyncio.get_running_loop().call_later(self.stream_delay_s, self._fold, *record)
        await asyncio.sleep(0.006)
        return JSONResponse({"events": [{"partition": 2, "offset": offset}]}, 202)

    def release_stream(self) -> None:
        """Folds in what was held back, and from now on what comes after its delay."""
        self.is_stream_held = False
        while self._unfolded:
            self._fold(*self._unfolded.pop(0))

    def _fold(self, user: str, item: str, kind: str, time_ms: int, offset: int) -> None:
        entry = {"item_id": item, "type": kind, "time_ms": time_ms, "weight": 1.0}
        self.histories.setdefault(user, []).append({**entry, "offset": offset})

    def _as_of(self, user: str) -> dict[str, int] | None:
        history = self.histories.get(user)
        return {"partition": 2, "offset": history[-1]["offset"]} if history else None

    def _ranked(self, user: str) -> list[dict[str, Any]]:
        """Items near the last ones in the catalogue's order come first; the rest is trend."""
        rows = {item: row for row, item in enumerate(self.titles)}
        taken = [entry["item_id"] for entry in self.histories.get(user, [])]
        answer = []
        for item, row in rows.items():
            if item in taken or self.is_empty:
                continue
            score, source, because = 0.02 * (row % 7), "trend", None
            for age, other in enumerate(reversed(taken)):
                closeness = 2.2 * 0.7**age / (1 + abs(rows.get(other, 99) - row))
                if closeness > score:
                    score, source = closeness, "next" if age == 0 else "vector"
                    reason = {"item_id": other, "source": source, "share": 1.0}
                    because = [{**reason, "title": self.titles.get(other)}]
            answer.append(
                {
                    "item_id": item,
                    "score": score,
                    "source": source,
                    "title": self.titles[item],
                    "because": because,
                }
            )
        return sorted(answer, key=lambda item: -item["score"])


class _StrictPolicy:
    """The strictest Content-Security-Policy that the real server may send."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"].append((b"content-security-policy", b"default-src 'self'"))
            await send(message)

        await self.app(scope, receive, send_with_policy)


def _error(status: int, code: str, message: str) -> Response:
    return JSONResponse({"error": {"code": code, "message": message}}, status)


def _not_ready() -> Response:
    response = _error(503, "not_ready", NOT_READY)
    response.headers["retry-after"] = "1"
    return response


class FakeServer:
    """Serves a FakeApi from a thread; can go away and come back on the same port."""

    def __init__(self, api: FakeApi) -> None:
        self.api = api
        self.port = free_ports(1)[0]
        self.url = f"http://127.0.0.1:{self.port}/"
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        config = uvicorn.Config(
            self.api.app(),
            host="127.0.0.1",
            port=self.port,
            log_level="error",
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        deadline = time.monotonic() + 60
        while not self._server.started:
            if time.monotonic() > deadline:
                raise TimeoutError("the fake API did not start")
            time.sleep(0.01)

    def stop(self) -> None:
        if self._server and self._thread:
            self._server.should_exit = True
            self._thread.join(10)
            self._server = self._thread = None


@contextlib.contextmanager
def serve(api: FakeApi) -> Iterator[FakeServer]:
    server = FakeServer(api)
    server.start()
    try:
        yield server
    finally:
        server.stop()

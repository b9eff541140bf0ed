"""The client against a server that answers in every way."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from rheos.client import ApiError, Client


class Server(ThreadingHTTPServer):
    status = 200
    body = b"{}"
    asked: list[tuple[str, str, Any]]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        sent = json.loads(self.rfile.read(length)) if length else None
        self.server.asked.append((self.command, self.path, sent))
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(self.server.body)))
        self.end_headers()
        self.wfile.write(self.server.body)

    def do_GET(self) -> None:
        self.answer()

    def do_POST(self) -> None:
        self.answer()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), Handler)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(f"http://127.0.0.1:{server.server_port}/") as client:
        yield client


def test_questions_go_to_their_routes(server: Server, client: Client) -> None:
    client.recommendations("17850", 5)
    client.recommendations("1", 5, category="a b", exclude=["x", "y&z"], explain=True)
    client.similar("85123A")
    client.status()
    client.send([{"user_id": "1"}])

    assert server.asked == [
        ("GET", "/v1/users/17850/recommendations?k=5", None),
        (
            "GET",
            "/v1/users/1/recommendations?k=5&category=a+b&exclude=x&exclude=y%26z&explain=true",
            None,
        ),
        ("GET", "/v1/items/85123A/similar?k=10", None),
        ("GET", "/v1/status", None),
        ("POST", "/v1/events", [{"user_id": "1"}]),
    ]


@pytest.mark.parametrize("user", ["a/b", "..", ".", "a b?k=1", "ü#%2F"])
def test_an_id_stays_one_segment_whatever_it_holds(
    server: Server, client: Client, user: str
) -> None:
    from urllib.parse import unquote

    client.recommendations(user, 1)
    (_, path, _) = server.asked[0]
    _, version, users, segment, last = path.split("/")

    assert (version, users, unquote(segment)) == ("v1", "users", user)
    assert last == "recommendations?k=1"


def refusal(client: Client) -> ApiError:
    with pytest.raises(ApiError) as refused:
        client.status()
    return refused.value


def test_a_refusal_carries_the_apis_own_words(server: Server, client: Client) -> None:
    server.status = 503
    server.body = b'{"error": {"code": "not_ready", "message": "reading the states"}}'

    error = refusal(client)

    assert (error.status, error.code, str(error)) == (503, "not_ready", "reading the states")


@pytest.mark.parametrize(
    ("status", "body"),
    [(200, b"<html>"), (200, b"[1]"), (404, b""), (500, b'{"error": "text"}'), (302, b"{}")],
)
def test_a_stranger_is_told_from_the_api(
    server: Server, client: Client, status: int, body: bytes
) -> None:
    server.status, server.body = status, body

    error = refusal(client)

    assert (error.status, error.code) == (status, "not_the_api")
    assert client.url in str(error)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://nowhere.invalid", "nonsense"])
def test_an_api_that_is_away_is_named_with_its_address(url: str) -> None:
    with Client(url) as client:
        error = refusal(client)

    assert (error.status, error.code) == (0, "unreachable")
    assert url in str(error)

"""Hostile HTTP against a live indexer: every answer is JSON of one shape, none is a 500."""

import contextlib
import json
import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.specs.openapi.checks import positive_data_acceptance

from indexer.api import openapi
from indexer.api.app import endpoints
from rheos.local_kafka import KafkaProcess
from tests.indexer import shop
from tests.integration.indexer_rig import Feed, Indexer, running, settings_for

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def indexer(
    run_broker: KafkaProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Indexer]:
    run_broker.start()
    chosen = settings_for(run_broker.bootstrap, "thostile", tmp_path_factory.mktemp("indexer"))
    feed = Feed(chosen)
    items = [f"i{number}" for number in range(20)]
    feed.announce(shop.stored(feed.store, items, shop.vectors(20)))
    feed.user("u", shop.user_state(items[:3]))
    for item in items:
        feed.item_state(item, shop.item_state(2, {"i1": (1.0, 1.0)}))
    feed.flush()
    with running(chosen) as made:
        yield made.ready()
    feed.close()


@pytest.fixture
def client(indexer: Indexer) -> httpx.Client:
    return indexer.client


def error_of(answer: httpx.Response) -> dict[str, Any]:
    """The error of an answer, whose shape is checked on the way."""
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert set(body) == {"error"}
    assert set(body["error"]) <= {"code", "message", "index", "reason"}
    assert body["error"]["code"]
    assert body["error"]["message"]
    error: dict[str, Any] = body["error"]
    return error


DOCUMENT = schemathesis.openapi.from_dict(openapi.document(endpoints(), max_k=500))


@pytest.mark.parametrize(
    ("method", "path"),
    [(endpoint.method, endpoint.path) for endpoint in endpoints()],
    ids=lambda value: value,
)
def test_answers_keep_to_the_openapi_document(indexer: Indexer, method: str, path: str) -> None:
    @given(case=DOCUMENT[path][method].as_strategy())
    @settings(
        max_examples=15,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    def keeps(case: Any) -> None:
        answer = case.call(base_url=indexer.url)
        # Ids have rules (control characters, bytes of UTF-8) that JSON Schema cannot say: what is
        # generated as valid may rightly be refused.
        case.validate_response(answer, excluded_checks=[positive_data_acceptance])

    keeps()


@pytest.mark.parametrize(
    "path",
    [
        "/v1/users/%00/recommendations",
        "/v1/users/a%0Ab/recommendations",
        "/v1/users/%C2%85/recommendations",
        "/v1/users/%FF%FE/recommendations",
        "/v1/users/" + "x" * 257 + "/recommendations",
        "/v1/users/u/recommendations?k=0",
        "/v1/users/u/recommendations?k=-1",
        "/v1/users/u/recommendations?k=501",
        "/v1/users/u/recommendations?k=1e3",
        "/v1/users/u/recommendations?k=NaN",
        "/v1/users/u/recommendations?k=",
        "/v1/users/u/recommendations?k=99999999999999999999999",
        "/v1/users/u/recommendations?k=5&k=6",
        "/v1/users/u/recommendations?unknown=1",
        "/v1/users/u/recommendations?explain=perhaps",
        "/v1/users/u/recommendations?sources=vector,magic",
        "/v1/users/u/recommendations?sources=",
        "/v1/users/u/recommendations?exclude=a%00b",
        "/v1/users/u/recommendations?" + "&".join(f"exclude=i{n}" for n in range(1001)),
        "/v1/items/%00/similar",
        "/v1/items/i1/similar?explain=true",
        "/v1/items?limit=101",
        "/v1/items?query=" + "q" * 257,
        "/v1/users?limit=0",
        "/v1/status?verbose=1",
    ],
)
def test_a_bad_id_or_parameter_is_a_422_that_names_it(client: httpx.Client, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 422
    error_of(answer)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/v1/users//recommendations", 404),
        ("GET", "/v1/users/a/b/recommendations", 404),
        ("GET", "/v1/status/", 404),
        ("GET", "/page/nothing.js", 404),
        ("DELETE", "/v1/users/u/recommendations", 405),
        ("POST", "/v1/status", 405),
        ("GET", "/v1/events", 405),
        ("PATCH", "/v1/items/i1", 405),
        ("POST", "/", 405),
        ("POST", "/page/page.js", 405),
    ],
)
def test_unknown_paths_and_methods_have_the_one_error_shape(
    client: httpx.Client, method: str, path: str, status: int
) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    assert error_of(answer)["code"] == {404: "not_found", 405: "method_not_allowed"}[status]
    if status == 405:
        assert answer.headers["allow"]


def test_405_names_every_method_of_the_path(client: httpx.Client) -> None:
    allowed = client.patch("/v1/items/i1").headers["allow"]
    assert {name.strip() for name in allowed.split(",")} == {"GET", "HEAD", "PUT", "DELETE"}


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/events", b"", 400),
        ("/v1/events", b"{", 400),
        ("/v1/events", b"\xff\xfe\x00", 400),
        ("/v1/events", b"null", 422),
        ("/v1/events", b"[null]", 422),
        ("/v1/events", b"[[[[]]]]", 422),
        ("/v1/events", b"[" * 200_000, 400),
        ("/v1/events", b'{"a":' * 100_000, 400),
        ("/v1/events", b'{"user_id":"\\ud800","item_id":"i","type":"click","time_ms":1}', None),
        ("/v1/events", b'{"user_id":"u","item_id":"i","type":"click","time_ms":1e400}', None),
        ("/v1/events", b'{"user_id":"u","item_id":"i","type":"click","time_ms":1.5}', 422),
        ("/v1/events", b'{"user_id":{},"item_id":"i","type":"click","time_ms":1}', 422),
        ("/v1/recommendations", b"{}", 422),
        ("/v1/recommendations", b'{"users": []}', 422),
        ("/v1/recommendations", b'{"users": ["u"], "history": []}', 422),
        ("/v1/recommendations", b'{"users": [""]}', 422),
        ("/v1/recommendations", b'{"users": ["u"], "k": 1e9}', 422),
        ("/v1/recommendations", b'{"users": ["u"], "surprise": 1}', 422),
        ("/v1/recommendations", b'{"history": [{"item_id": "a", "weight": NaN}]}', 400),
        ("/v1/recommendations", b'{"history": [{"item_id": "a", "weight": 1e300}]}', 422),
        ("/v1/recommendations", b'{"history": [{"item_id": "a", "type": "jump"}]}', 422),
        ("/v1/recommendations", b'{"history": [{"item_id": "a", "time_ms": -1}]}', 422),
        ("/v1/recommendations", b'{"users": ["u"], "sources": ["magic"]}', 422),
        ("/v1/items", b"{}", 422),
        ("/v1/items", b"[]", 422),
        ("/v1/items", b'[{"item_id": "a", "price": 1e999}]', None),
    ],
)
def test_a_bad_body_is_refused_and_never_a_500(
    client: httpx.Client, path: str, body: bytes, status: int | None
) -> None:
    answer = client.post(path, content=body)
    assert answer.status_code in ((status,) if status else (400, 422))
    error_of(answer)


def test_a_body_beyond_the_limit_is_a_413_told_or_not(client: httpx.Client) -> None:
    told = client.post("/v1/events", content=b" " * (10 * 1024 * 1024))
    assert told.status_code == 413
    assert error_of(told)["code"] == "too_large"

    def endless() -> Iterator[bytes]:
        for _ in range(200):
            yield b" " * 65_536

    # The server may close while we still send: then there is an answer or a broken connection.
    with contextlib.suppress(httpx.TransportError):
        untold = client.post("/v1/events", content=endless())
        assert untold.status_code == 413
    assert client.get("/v1/status").status_code == 200


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01",
        b"GET\r\n\r\n",
        b"GET /v1/status HTTP/9.9\r\n\r\n",
        b"GET /v1/users/\xff\xfe/recommendations HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/status?\xff=1 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /v1/status HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 200_000 + b"\r\n\r\n",
        b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n{}",
        b"POST /v1/events HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
        b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
    ],
)
def test_bytes_that_are_no_proper_http_leave_the_server_standing(
    indexer: Indexer, request_bytes: bytes
) -> None:
    port = int(indexer.url.rpartition(":")[2])
    raw = socket.create_connection(("127.0.0.1", port), timeout=1)
    with raw, contextlib.suppress(OSError):
        raw.sendall(request_bytes)
        answer = raw.recv(65_536)
        assert b" 500 " not in answer.split(b"\r\n", 1)[0]
    assert indexer.client.get("/v1/status").status_code == 200


def test_titles_travel_as_data(client: httpx.Client) -> None:
    title = '</script><script>alert("x")</script>\u2028'
    assert client.put("/v1/items/evil", json={"title": title}).status_code == 202
    answer = client.get("/openapi.json")
    assert json.loads(answer.content)["info"]["title"] == "Rheos"

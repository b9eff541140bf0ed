"""Readiness, restarts, and what the indexer does while Kafka is away."""

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from confluent_kafka import Producer

from rheos.catalogue import Item
from rheos.ids import partition_of
from rheos.local_kafka import KafkaProcess
from rheos.settings import Settings
from rheos.state import encode_state
from tests.broker import free_ports
from tests.indexer import shop
from tests.integration.indexer_rig import Feed, running, settings_for, until

pytestmark = pytest.mark.kafka

GIVES_UP_WITHIN_S = 30
"""15 s by `indexer.event_writer`, and what a busy machine adds."""
STOPS_WITHIN_S = 15
"""Four seconds at most by the graces, and what a busy machine adds."""


@pytest.fixture
def settings(broker: KafkaProcess, prefix: str, tmp_path: Path) -> Settings:
    return settings_for(broker.bootstrap, prefix, tmp_path)


@pytest.fixture
def feed(settings: Settings) -> Iterator[Feed]:
    made = Feed(settings)
    yield made
    made.close()


def transactional(settings: Settings, identity: str) -> Producer:
    producer = Producer(
        {
            "bootstrap.servers": settings.kafka.bootstrap,
            "transactional.id": f"{settings.kafka.prefix}-{identity}",
            "transaction.timeout.ms": 60_000,
        }
    )
    producer.init_transactions(60)
    return producer


def test_not_ready_until_it_has_read_past_an_open_transaction_that_it_saw(
    settings: Settings, feed: Feed
) -> None:
    """The end of a partition told to a read-committed reader stops before the open transaction:
    an indexer that trusted it would call itself ready and answer from an older state."""
    feed.user("u", shop.user_state(["a"], offset=1))
    feed.item_state("a", shop.item_state(2, {"b": (1.0, 1.0)}))
    feed.flush()
    producer = transactional(settings, "open")
    producer.begin_transaction()
    newer = encode_state(shop.user_state(["a", "b"], offset=2))
    at = partition_of("u", settings.kafka.events_partitions)
    producer.produce(feed.topics.user_state, key="u", value=newer, partition=at)
    producer.flush(60)
    with running(settings) as indexer:
        client = indexer.client
        until(lambda: "messages to go" in client.get("/readyz").text)
        time.sleep(1)
        ready = client.get("/readyz")
        assert ready.status_code == 503
        assert "messages to go" in ready.text
        for path in (
            "/v1/users/u/recommendations",
            "/v1/users/nobody/recommendations",
            "/v1/users/u",
            "/v1/items/a/similar",
        ):
            answer = client.get(path)
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "not_ready"
            assert answer.headers["Retry-After"] == "1"
        assert client.post("/v1/recommendations", json={"users": ["u"]}).status_code == 503
        assert client.get("/healthz").status_code == 200
        assert client.get("/v1/status").json()["ready"] is False
        event = {"user_id": "u", "item_id": "a", "type": "click", "time_ms": 1}
        assert client.post("/v1/events", json=event).status_code == 202
        producer.commit_transaction(60)
        indexer.ready()
        assert client.get("/v1/users/u/recommendations").json()["as_of"]["offset"] == 2


def test_aborted_states_are_never_seen_and_do_not_hold_up_readiness(
    settings: Settings, feed: Feed
) -> None:
    feed.user("u", shop.user_state(["a"], offset=1))
    feed.flush()
    producer = transactional(settings, "abort")
    at = partition_of("u", settings.kafka.events_partitions)
    for offset in range(2, 5):
        producer.begin_transaction()
        lost = encode_state(shop.user_state(["a", "b"], offset=offset))
        producer.produce(feed.topics.user_state, key="u", value=lost, partition=at)
        producer.flush(60)
        producer.abort_transaction(60)
    with running(settings) as indexer:
        indexer.ready()
        assert indexer.client.get("/v1/users/u").json()["as_of"]["offset"] == 1


def test_a_restarted_indexer_gives_the_same_answers(settings: Settings, feed: Feed) -> None:
    items = [f"i{number}" for number in range(50)]
    name = shop.stored(feed.store, items, shop.vectors(50))
    for number, item in enumerate(items):
        near = {items[(number * 7 + step) % 50]: (1.0 / step, 2.0 / step) for step in range(1, 6)}
        feed.item_state(item, shop.item_state(number % 9 + 1, near))
        feed.item(Item(item_id=item, title=item.upper(), available=number % 11 != 0))
    for user in range(20):
        feed.user(f"u{user}", shop.user_state(items[user : user + 8], offset=user))
    feed.item(Item(item_id="i5", available=False, deleted=True))
    feed.announce(name)
    feed.flush()

    def answers() -> list[object]:
        with running(settings) as indexer:
            indexer.ready()
            found = [
                indexer.client.get(f"/v1/users/u{user}/recommendations?k=30").json()
                for user in range(21)
            ]
        return [{**answer, "request_id": ""} for answer in found]

    first = answers()
    assert answers() == first
    shown = {item["item_id"] for answer in first for item in answer["items"]}  # type: ignore[index]
    assert "i5" not in shown
    assert len(shown) > 30


def test_a_crashed_broker_costs_writes_a_503_and_nothing_else(
    broker: KafkaProcess, settings: Settings, feed: Feed
) -> None:
    feed.user("u", shop.user_state(["a"], offset=1))
    feed.item_state("b", shop.item_state(3))
    feed.flush()
    event = {"user_id": "u", "item_id": "a", "type": "click", "time_ms": 1, "event_id": "e1"}
    with running(settings) as indexer:
        indexer.ready()
        client = indexer.client
        assert client.post("/v1/events", json=event).status_code == 202
        broker.kill()
        began = time.monotonic()
        refused = client.post("/v1/events", json=event)
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "kafka_away"
        assert time.monotonic() - began < GIVES_UP_WITHIN_S
        for _ in range(50):
            assert client.get("/v1/users/u/recommendations").status_code == 200
        broker.start()
        until(lambda: client.post("/v1/events", json=event).status_code == 202, 60)
        feed.user("u", shop.user_state(["a", "b"], offset=2))
        feed.flush()
        until(lambda: client.get("/v1/users/u/recommendations").json()["as_of"]["offset"] == 2, 60)
        assert client.get("/healthz").status_code == 200


def test_more_requests_than_the_setting_are_refused_early_while_probes_get_in(
    settings: Settings, broker: KafkaProcess, feed: Feed
) -> None:
    few = settings_for(
        broker.bootstrap, settings.kafka.prefix, Path(settings.data_dir), max_concurrent=2
    )
    with running(few) as indexer, contextlib.ExitStack() as stack:
        indexer.ready()
        # Two requests that are in work for as long as we do not send the rest of their bodies.
        port = int(indexer.url.rpartition(":")[2])
        held = []
        for _ in range(2):
            one = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            one.sendall(
                b"POST /v1/events HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n[",
            )
            held.append(one)
        until(lambda: indexer.client.get("/v1/status").status_code == 503)
        refused = indexer.client.get("/v1/users/u/recommendations")
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "busy"
        assert refused.headers["Retry-After"] == "1"
        assert indexer.client.get("/readyz").status_code == 200
        assert indexer.client.get("/metrics").status_code == 200
        for one in held:
            one.close()
        until(lambda: indexer.client.get("/v1/status").status_code == 200)


WORKER = "import sys; from rheos import settings; from indexer.worker import run; \
sys.exit(run(settings.load()))"


def worker(settings: Settings, port: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", WORKER],
        env={
            "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
            "OMP_NUM_THREADS": "1",
            "RHEOS_KAFKA_BOOTSTRAP": settings.kafka.bootstrap,
            "RHEOS_KAFKA_PREFIX": settings.kafka.prefix,
            "RHEOS_DATA_DIR": settings.data_dir,
            "RHEOS_INDEXER_PORT": str(port),
        },
        cwd=settings.data_dir,
        stderr=subprocess.PIPE,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_process_makes_its_topics_and_stops_cleanly_on_a_signal(
    settings: Settings, number: signal.Signals
) -> None:
    (port,) = free_ports(1)
    process = worker(settings, port)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:

        def is_ready() -> bool:
            try:
                return client.get("/readyz").status_code == 200
            except httpx.TransportError:
                return False

        until(is_ready, 60)
        began = time.monotonic()
        process.send_signal(number)
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 0, stderr.decode()
        assert time.monotonic() - began < STOPS_WITHIN_S
        assert b"Traceback" not in stderr


def test_the_process_stops_within_seconds_when_kafka_is_away(
    settings: Settings, tmp_path: Path
) -> None:
    away = settings_for(f"127.0.0.1:{free_ports(1)[0]}", "away", tmp_path)
    (port,) = free_ports(1)
    process = worker(away, port)
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:

        def answers_503() -> bool:
            try:
                return client.get("/v1/users/u/recommendations").status_code == 503
            except httpx.TransportError:
                return False

        until(answers_503, 60)
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 0
    assert time.monotonic() - began < STOPS_WITHIN_S


def test_a_busy_port_ends_the_process_with_its_number(settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = worker(settings, port)
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert str(port) in stderr.decode()


def test_freshness_is_measured_from_append_time_only_for_what_came_after_readiness(
    settings: Settings, feed: Feed
) -> None:
    from rheos.metrics import REGISTRY

    def measured() -> float:
        return REGISTRY.get_sample_value("rheos_freshness_seconds_count") or 0.0

    feed.user("old", shop.user_state(["a"], append_time_ms=1))
    feed.flush()
    with running(settings) as indexer:
        indexer.ready()
        before = measured()
        now_ms = int(time.time() * 1000)
        feed.user("new", shop.user_state(["a"], append_time_ms=now_ms))
        feed.flush()
        until(lambda: measured() == before + 1)


def test_records_of_many_threads_reach_their_partitions_once(
    settings: Settings, feed: Feed
) -> None:
    with running(settings) as indexer:
        places: list[tuple[int, int]] = []
        lock = threading.Lock()

        def post(thread: int) -> None:
            with httpx.Client(base_url=indexer.url, timeout=60, trust_env=False) as client:
                for number in range(25):
                    event = {
                        "user_id": f"u{thread}",
                        "item_id": f"i{number}",
                        "type": "click",
                        "time_ms": number,
                    }
                    answer = client.post("/v1/events", json=event)
                    assert answer.status_code == 202
                    with lock:
                        place = answer.json()["events"][0]
                        places.append((place["partition"], place["offset"]))

        threads = [threading.Thread(target=post, args=(thread,)) for thread in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(places) == len(set(places)) == 150

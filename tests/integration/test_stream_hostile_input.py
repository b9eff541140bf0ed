"""Whatever stands in the topics, a real worker goes on, counts it and says what was wrong."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from rheos import topics
from rheos.ids import partition_of
from rheos.local_kafka import KafkaProcess
from rheos.state import MAX_DEAD_LETTER_BYTES, DeadLetter, decode_dead_letter
from rheos.topics import Topics
from tests.stream.kafka_log import cut_topic, make_topics, read, send
from tests.stream.loop_check import Loop
from tests.stream.worker_process import WorkerProcess, worker_settings

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

NOW_MS = int(time.time() * 1000)


def event(**changes: object) -> bytes:
    fields = {"user_id": "ann", "item_id": "cup", "type": "view", "time_ms": NOW_MS, **changes}
    return json.dumps({key: value for key, value in fields.items() if value != "-"}).encode()


def user_in(partition: int) -> str:
    return next(f"u{n}" for n in range(99) if partition_of(f"u{n}", 2) == partition)


HOME = partition_of("ann", 2)
STRANGER = user_in(1 - HOME)
REFUSED: list[tuple[bytes | None, bytes | None, str]] = [
    (b"ann", b"not json", "not_json"),
    (b"ann", b"", "not_json"),
    (b"ann", b"\xff\xfe\x00", "not_json"),
    (b"ann", b'{"user_id": "ann"', "not_json"),
    (b"ann", b"[" * 60_000, "wrong_type"),
    (b"ann", b"[]", "wrong_type"),
    (b"ann", b"null", "wrong_type"),
    (b"ann", event(time_ms="yesterday"), "wrong_type"),
    (b"ann", event(user_id=1.5), "wrong_type"),
    (b"ann", event(user_id=None), "wrong_type"),
    (b"ann", event(value="much"), "wrong_type"),
    (b"ann", event(context=[1]), "wrong_type"),
    (b"ann", event(item_id="-"), "missing_field"),
    (b"ann", event(type="rating"), "missing_field"),
    (b"ann", event(user_id=""), "empty_id"),
    (b"ann", event(item_id="x" * 257), "long_id"),
    (b"ann", event(item_id="é" * 200), "long_id"),
    (b"ann", event(item_id="a\nb"), "control_character"),
    (b"ann", event(item_id="\x00checkpoint"), "control_character"),
    (b"ann", event(item_id="\ud800"), "not_json"),
    (b"ann", event(type="teleport"), "unknown_type"),
    (b"ann", event(time_ms=-1), "out_of_range"),
    (b"ann", event(time_ms=1 << 60), "out_of_range"),
    (b"ann", event(value=float("nan")), "not_json"),
    (b"ann", event(value=-3), "out_of_range"),
    (b"ann", event(time_ms=NOW_MS + 10 * 86_400_000), "in_the_future"),
    (b"ann", event(context={"x": "y" * 70_000}), "too_large"),
    (b"ann", event(context={"x": "y" * 5_000_000}), "too_large"),
    (b"ann", None, "tombstone"),
    (None, None, "tombstone"),
    (b"k" * 70_000, b"no", "not_json"),
    (STRANGER.encode(), event(user_id=STRANGER), "wrong_partition"),
]
ACCEPTED: list[tuple[bytes | None, bytes]] = [
    (b"ann", event()),
    (b"bob", event(item_id="a key that is not the user's")),
    (None, event(item_id="no key")),
    (b"", event(item_id="an empty key")),
    (b"ann", event(item_id=7)),
    (b"ann", event(item_id="1970", time_ms=0)),
    (b"ann", event(item_id="unknown fields", colour="red")),
]


@pytest.fixture
def worker(broker: KafkaProcess, prefix: str, tmp_path: Path) -> Iterator[WorkerProcess]:
    names = Topics(worker_settings(broker.bootstrap, prefix, tmp_path))
    config = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": "8000000"}
    make_topics(broker.bootstrap, {names.events: 2, f"{prefix}-orders": 2}, config)
    settings = worker_settings(
        broker.bootstrap,
        prefix,
        tmp_path,
        sources=[
            {
                "name": "orders",
                "topic": f"{prefix}-orders",
                "user": "customer.id",
                "item": "sku",
                "time": "at",
                "time_unit": "iso",
                "fixed_type": "purchase",
            }
        ],
    )
    assert topics.ensure(settings) == []
    started = WorkerProcess(settings, tmp_path / "worker.log")
    started.settings = settings  # type: ignore[attr-defined]
    yield started
    started.kill()
    print(started.log[-20_000:])  # pytest shows it when the test failed


def letters(bootstrap: str, topic: str) -> list[DeadLetter]:
    return [decode_dead_letter(entry.value or b"") for entry in read(bootstrap, topic)[0]]


def test_the_worker_never_stops_and_every_bad_record_is_a_letter_with_its_reason(
    worker: WorkerProcess,
) -> None:
    loop = Loop(worker.settings)  # type: ignore[attr-defined]
    sent: list[tuple[bytes | None, bytes | None]] = []
    for place, (key, value, _) in enumerate(REFUSED):
        sent.append((key, value))
        if place < len(ACCEPTED):
            sent.append(ACCEPTED[place])
    sent.append(ACCEPTED[0])  # a retry
    send(loop.bootstrap, loop.topics.events, sent, partition=HOME)
    worker.wait_ready()
    loop.wait_folded()

    found = letters(loop.bootstrap, loop.topics.dead_letters)
    assert [(letter.reason, (letter.value or b"")[:60]) for letter in found] == [
        (reason, (value or b"")[:60]) for _, value, reason in REFUSED
    ]
    for letter, (key, value, reason) in zip(found, REFUSED, strict=True):
        offset = sent.index((key, value))
        assert letter.place == f"{loop.topics.events}[{HOME}]@{offset}"
        assert letter.value == (None if value is None else value[:MAX_DEAD_LETTER_BYTES]), reason
        assert letter.size == len(value or b"")
    text = found[-1].text
    assert "partitioner=murmur2_random" in text
    assert "[[sources]]" in text
    loop.check()
    assert worker.process.poll() is None
    assert worker.metric("rheos_events_accepted_total") == len(ACCEPTED)
    assert worker.metric("rheos_events_duplicate_total") == 1
    for reason, count in Counter(reason for _, _, reason in REFUSED).items():
        assert (
            f'rheos_events_rejected_total{{reason="{reason}"}} {float(count)}'
            in (worker.ask("metrics")[1])
        )


def test_a_foreign_source_becomes_events_each_in_its_users_partition_once(
    worker: WorkerProcess,
) -> None:
    loop = Loop(worker.settings)  # type: ignore[attr-defined]
    orders = [
        json.dumps(
            {"customer": {"id": n % 7}, "sku": f"s{n}", "at": f"2024-05-01T10:{n:02}:00Z"}
        ).encode()
        for n in range(30)
    ]
    bad = [
        b"not json",
        b'{"sku": "x"}',
        b'{"customer": {"id": ""}, "sku": "x", "at": "2024-05-01"}',
    ]
    topic = f"{worker.settings.kafka.prefix}-orders"  # type: ignore[attr-defined]
    send(loop.bootstrap, topic, [(b"whatever", value) for value in orders[:15]])
    worker.wait_ready()
    send(loop.bootstrap, topic, [(None, value) for value in bad + orders[15:]])
    deadline = time.monotonic() + 120
    while sum(map(len, read(loop.bootstrap, loop.topics.events))) < 30:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    for number, entries in enumerate(read(loop.bootstrap, loop.topics.events)):
        for entry in entries:
            assert partition_of((entry.key or b"").decode(), 2) == number
    loop.check()
    found = letters(loop.bootstrap, loop.topics.dead_letters)
    assert sorted(letter.reason for letter in found) == ["empty_id", "missing_field", "not_json"]
    assert {letter.source for letter in found} == {"orders"}
    assert {letter.topic for letter in found} == {topic}


def test_what_a_producer_aborted_is_not_counted(worker: WorkerProcess) -> None:
    loop = Loop(worker.settings)  # type: ignore[attr-defined]
    worker.wait_ready()
    producer = Producer(
        {
            "bootstrap.servers": loop.bootstrap,
            "transactional.id": f"{loop.topics.events}-test",
            "partitioner": "murmur2_random",
        }
    )
    producer.init_transactions(60)
    for number in range(4):
        producer.begin_transaction()
        for key, value in loop.events(20):
            producer.produce(loop.topics.events, value, key)
        if number % 2:
            producer.flush(60)
            producer.abort_transaction(60)
        else:
            producer.commit_transaction(60)
    loop.check()
    assert worker.metric("rheos_events_accepted_total") == 40
    deadline = time.monotonic() + 120
    while worker.metric("rheos_lag_messages") > 0:  # the markers at the end are no lag
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_log_that_retention_cuts_under_a_lagging_worker_is_told_by_readyz(
    worker: WorkerProcess, tmp_path: Path
) -> None:
    loop = Loop(worker.settings)  # type: ignore[attr-defined]
    worker.wait_ready()
    loop.send(100)
    loop.wait_folded()
    worker.kill()
    loop.send(200)
    log = read(loop.bootstrap, loop.topics.events)
    cut_topic(loop.bootstrap, loop.topics.events, 0, log[0][-1].offset)
    again = WorkerProcess(worker.settings, tmp_path / "again.log")  # type: ignore[attr-defined]
    try:
        deadline = time.monotonic() + 120
        while "accept_loss" not in again.ask("readyz")[1]:
            assert time.monotonic() < deadline, again.ask("readyz")
            time.sleep(0.2)
        status, text = again.ask("readyz")
        assert status == 503
        assert f"{loop.topics.events}[0]" in text
        assert again.metric("rheos_partitions_stopped") == 1
        deadline = time.monotonic() + 120
        while again.metric("rheos_events_accepted_total") < 1:  # the other partitions go on
            assert time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        again.kill()

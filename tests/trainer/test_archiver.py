"""From the events topic to the archive, on a real Kafka: each event once, whatever breaks."""

import contextlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from kafka import KafkaAdminClient, TopicPartition

from rheos import metrics, topics
from rheos.events import Event
from rheos.ids import partition_of
from rheos.local_kafka import KafkaProcess
from rheos.settings import Settings
from tests.trainer.archived import read
from tests.trainer.shop import producer, put, send, settings_for, taste
from trainer import archive as archive_module
from trainer import archiver as archiver_module
from trainer.archive import Archive, ArchiveError
from trainer.archiver import Archiver

pytestmark = pytest.mark.kafka
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def settings(broker: KafkaProcess, prefix: str, tmp_path: Path) -> Settings:
    return settings_for(broker.bootstrap, prefix, tmp_path)


def archived(settings: Settings, archive: Archive) -> list[tuple[str, int]]:
    """What the archive holds as (user, time), sorted: our events differ in these."""
    table = read(archive, ["offset", "user_id", "time_ms"]).table
    places = zip(table["partition"].to_pylist(), table["offset"].to_pylist(), strict=True)
    assert len(set(places)) == len(table)
    return sorted(zip(table["user_id"].to_pylist(), table["time_ms"].to_pylist(), strict=True))


def expected(events: list[Event]) -> list[tuple[str, int]]:
    return sorted((event.user_id, event.time_ms) for event in events)


def catch_up(settings: Settings) -> Archive:
    with Archiver(settings) as archiver:
        archiver.catch_up()
        assert archiver.measure() == 0
    return archiver.archive


def test_everything_is_archived_once_and_the_second_run_goes_on(settings: Settings) -> None:
    first, second = taste(500), taste(300, start=500)
    send(settings, first)
    archive = catch_up(settings)
    assert archived(settings, archive) == expected(first)
    before = read(archive, ["offset"]).window
    assert read(catch_up(settings), ["offset"]).window == before
    send(settings, second)
    assert archived(settings, catch_up(settings)) == expected(first + second)


def test_progress_tells_what_is_left(settings: Settings) -> None:
    send(settings, taste(100))
    told: list[tuple[int, int]] = []
    with Archiver(settings) as archiver:
        archiver.catch_up(lambda done, total: told.append((done, total)))
        assert archiver.records() == 100
    assert told[-1] == (100, 100)
    assert told == sorted(told)


def test_all_of_an_event_is_kept(settings: Settings) -> None:
    event = Event(
        user_id="u1",
        item_id="i1",
        type="rating",
        time_ms=5,
        event_id="e",
        value=4.5,
        session_id="s",
        request_id="r",
        context={"page": "home", "n": 1.0},
    )
    send(settings, [event])
    row = read(catch_up(settings), archive_module.SCHEMA.names).table.to_pylist()[0]
    assert row["append_time_ms"] > 1_700_000_000_000
    assert msgspec.json.decode(row["context"]) == event.context
    for name in ("user_id", "item_id", "type", "time_ms", "event_id", "value", "session_id"):
        assert row[name] == getattr(event, name)


def test_what_the_stream_refuses_is_left_out_and_counted(settings: Settings) -> None:
    good = taste(20)
    send(settings, good)
    topic = topics.Topics(settings).events
    home = partition_of("u1", 2)

    def value(**fields: Any) -> bytes:
        return msgspec.json.encode(
            {"user_id": "u1", "item_id": "i", "type": "click", "time_ms": 1} | fields
        )

    bad = {
        "not_json": b"{",
        "wrong_type": value(time_ms="noon"),
        "missing_field": b'{"user_id":"u1"}',
        "empty_id": value(item_id=""),
        "long_id": value(item_id="x" * 300),
        "control_character": value(item_id="a\n"),
        "unknown_type": value(type="sneeze"),
        "out_of_range": value(time_ms=-1),
        "in_the_future": value(time_ms=1 << 52),
        "too_large": value(item_id="i", context={"a": "x" * 70_000}),
    }

    def count(reason: str) -> float:
        return metrics.ARCHIVE_SKIPPED.labels(reason)._value.get()

    before = {reason: count(reason) for reason in [*bad, "tombstone", "wrong_partition"]}
    with producer(settings) as out:
        for payload in bad.values():
            out.send(topic, key=b"u1", value=payload, partition=home)
        out.send(topic, key=b"u1", value=None, partition=home)
        out.send(topic, key=b"u1", value=value(), partition=1 - home)
        out.send(topic, key=None, value=value(user_id=7, time_ms=9), partition=partition_of("7", 2))
    archive = catch_up(settings)
    assert archived(settings, archive) == sorted([*expected(good), ("7", 9)])
    assert {reason: count(reason) - was for reason, was in before.items()} == dict.fromkeys(
        before, 1.0
    )
    # Refused records are passed for good: nothing is read twice because of them.
    with Archiver(settings) as archiver:
        assert archiver.measure() == 0


def test_aborted_transactions_are_no_events_and_markers_no_gaps(settings: Settings) -> None:
    assert topics.ensure(settings) == []
    events = taste(60)
    kept: list[Event] = []
    with producer(settings, transactional_id=f"{settings.kafka.prefix}-test") as out:
        out.init_transactions()
        for number in range(0, 60, 10):
            out.begin_transaction()
            for event in events[number : number + 10]:
                put(out, settings, event)
            out.flush()
            if number % 20:
                out.abort_transaction()
            else:
                out.commit_transaction()
                kept += events[number : number + 10]
            archive = catch_up(settings)
            assert archived(settings, archive) == expected(kept)
        out.begin_transaction()
        put(out, settings, events[0])
        out.flush()
        assert archived(settings, catch_up(settings)) == expected(kept)  # still open: not yet
        out.commit_transaction()
    assert archived(settings, catch_up(settings)) == expected([*kept, events[0]])


@pytest.mark.parametrize("after_rename", [False, True])
def test_a_failed_commit_is_made_up_for_by_the_next_run(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, after_rename: bool
) -> None:
    events = taste(300)
    send(settings, events)
    monkeypatch.setattr(archiver_module, "FLUSH_ROWS", 50)
    monkeypatch.setattr(archiver_module, "_POLL_RECORDS", 20)
    dice = random.Random(1)
    rename = Path.rename

    def torn(self: Path, target: Path) -> Path:
        if dice.random() < 0.5:
            if after_rename:
                rename(self, target)
            raise OSError("torn")
        return rename(self, target)

    failures = 0
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", torn)
        for _ in range(50):
            try:
                catch_up(settings)
                break
            except OSError:
                failures += 1
    assert failures
    assert archived(settings, catch_up(settings)) == expected(events)


ARCHIVE_FOR_EVER = """
import time
from kafka.errors import KafkaError
from rheos.settings import load
from trainer import archiver
archiver.FLUSH_ROWS, archiver._POLL_RECORDS = 40, 30
while True:
    try:
        with archiver.Archiver(load()) as found:
            print("ready", flush=True)
            while True:
                found.poll(100)
                found.flush()
    except KafkaError:
        time.sleep(0.1)
"""
"""As in the trainer's worker: a broker that is silent costs an archiver and not the process."""


@contextlib.contextmanager
def archiving_process(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """A process that archives until it is killed, at the latest at the end of the block."""
    child = subprocess.Popen(
        [sys.executable, "-c", ARCHIVE_FOR_EVER],
        cwd=REPOSITORY,
        env=os.environ
        | {
            "RHEOS_KAFKA_BOOTSTRAP": settings.kafka.bootstrap,
            "RHEOS_KAFKA_PREFIX": settings.kafka.prefix,
            "RHEOS_KAFKA_EVENTS_PARTITIONS": "2",
            "RHEOS_DATA_DIR": settings.data_dir,
            "RHEOS_CONFIG": os.devnull,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        yield child
    finally:
        child.kill()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()


def test_kill_9_at_any_moment_loses_and_doubles_nothing(settings: Settings) -> None:
    assert topics.ensure(settings) == []
    dice = random.Random(11)
    events = taste(1500)
    for number in range(0, len(events), 500):
        with archiving_process(settings):
            send(settings, events[number : number + 500])
            time.sleep(dice.random() * 0.6)
    assert archived(settings, catch_up(settings)) == expected(events)


def test_two_archivers_at_once_share_the_work_without_doubles(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archiver_module, "_POLL_RECORDS", 25)
    events = taste(400)
    send(settings, events)
    with Archiver(settings) as one, Archiver(settings) as other:
        dice = random.Random(2)
        for _ in range(60):
            chosen = dice.choice([one, other])
            chosen.poll(200)
            if dice.random() < 0.4:
                chosen.flush()
        one.catch_up()
        other.catch_up()
        assert one.records() == other.records() == len(events)
    assert archived(settings, one.archive) == expected(events)


def test_catching_up_reaches_the_end_though_another_commits_meanwhile(
    settings: Settings,
) -> None:
    events = taste(200)
    send(settings, events)
    with Archiver(settings) as slow, Archiver(settings) as quick:
        slow.poll(2000)  # buffered, not committed
        quick.catch_up()
        slow.catch_up()
    assert archived(settings, quick.archive) == expected(events)


def test_a_broker_that_dies_and_comes_back_is_no_loss(
    settings: Settings, broker: KafkaProcess
) -> None:
    first, second = taste(200), taste(200, start=200)
    send(settings, first)
    # In a process of its own: kafka-python leaves sockets behind that were refused.
    with archiving_process(settings) as child:
        broker.kill()
        broker.start()
        send(settings, second)
        wait_for(lambda: any(settings.archive_dir.glob("*")))
        (directory,) = settings.archive_dir.iterdir()
        archive = Archive(settings.archive_dir, directory.name)
        wait_for(lambda: sum(archive.position(p) or 0 for p in (0, 1)) == 400)
        assert child.poll() is None
    assert archived(settings, archive) == expected(first + second)


def recreate(settings: Settings, admin: KafkaAdminClient) -> None:
    topic = topics.Topics(settings).events
    admin.delete_topics([topic])
    wait_for(lambda: admin.describe_topics([topic])[0]["error_code"] != 0)
    assert topics.ensure(settings) == []


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def admin(broker: KafkaProcess) -> Any:
    client = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    yield client
    client.close()


def test_a_replaced_topic_is_archived_anew_and_the_old_archive_stays(
    settings: Settings, admin: KafkaAdminClient
) -> None:
    old, new = taste(100), taste(30, start=1000)
    send(settings, old)
    before = catch_up(settings)
    recreate(settings, admin)
    send(settings, new)
    after = catch_up(settings)
    assert after.topic_id != before.topic_id
    assert archived(settings, after) == expected(new)
    assert archived(settings, before) == expected(old)


def test_a_topic_replaced_while_it_is_read_does_not_get_into_the_old_archive(
    settings: Settings, admin: KafkaAdminClient
) -> None:
    old, new = taste(100), taste(300, start=1000)
    send(settings, old)
    with Archiver(settings) as archiver:
        archiver.catch_up()
        recreate(settings, admin)
        send(settings, new)

        def archive_on() -> None:
            for _ in range(100):
                archiver.poll(200)
                archiver._flush(list(archiver._buffers))

        with pytest.raises(ArchiveError, match="was replaced"):
            archive_on()
    assert archived(settings, archiver.archive) == expected(old)
    assert archived(settings, catch_up(settings)) == expected(new)


def test_a_log_that_was_cut_below_the_archive_is_named(settings: Settings) -> None:
    send(settings, taste(50))
    archive = catch_up(settings)
    end = archive.position(0)
    assert end is not None
    archive.commit(0, end, end + 10, archiver_module._no_rows())
    with pytest.raises(ArchiveError, match=rf"\[0\] ends at {end}, but is archived to {end + 10}"):
        Archiver(settings)


def test_events_that_retention_deleted_first_are_told_and_passed(
    settings: Settings, admin: KafkaAdminClient, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = taste(50), taste(80, start=50)
    send(settings, first)
    archive = catch_up(settings)
    send(settings, second)
    place = TopicPartition(topics.Topics(settings).events, 0)
    position = archive.position(0)
    assert position is not None
    admin.delete_records({place: position + 5})
    table = read(catch_up(settings), ["offset"]).table
    assert "were deleted by retention" in caplog.text
    assert len(table) == 130 - 5
    assert read(catch_up(settings), ["offset"]).table == table


def test_another_process_may_pass_what_retention_deleted_at_the_same_time(
    settings: Settings, admin: KafkaAdminClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(settings, taste(50))
    archive = catch_up(settings)
    send(settings, taste(80, start=50))
    position = archive.position(0)
    assert position is not None
    admin.delete_records({TopicPartition(topics.Topics(settings).events, 0): position + 5})
    real = Archive.commit

    def beaten(self: Archive, *arguments: Any) -> None:
        monkeypatch.setattr(Archive, "commit", real)
        real(self, *arguments)  # by the other process, just before
        real(self, *arguments)

    monkeypatch.setattr(Archive, "commit", beaten)
    assert len(read(catch_up(settings), ["offset"]).table) == 130 - 5


def test_a_missing_topic_is_named(settings: Settings) -> None:
    with pytest.raises(ArchiveError, match="does not exist; `rheos topics` creates it"):
        Archiver(settings)


def test_another_number_of_partitions_is_named(settings: Settings) -> None:
    assert topics.ensure(settings) == []
    kafka = msgspec.structs.replace(settings.kafka, events_partitions=3)
    with pytest.raises(ArchiveError, match="has 2 partitions, the settings say 3"):
        Archiver(msgspec.structs.replace(settings, kafka=kafka))

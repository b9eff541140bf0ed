"""Dead letters: read as they were written, sent again exactly once, never in a circle."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from rheos import topics
from rheos.ids import partition_of
from rheos.local_kafka import KafkaProcess
from rheos.settings import Settings, from_tree
from rheos.state import DeadLetter, encode_dead_letter
from rheos.topics import Topics
from stream import dead_letters
from stream.dead_letters import ALL_REASONS, Summary, letters, replay
from stream.source_writer import SourceWriter
from tests.committed import committed
from tests.stream.worker_process import WorkerProcess, worker_settings

pytestmark = pytest.mark.kafka

EVENT = b'{"user_id": "u1", "item_id": "i", "type": "view", "time_ms": 5, "mine": 1}'


@pytest.fixture
def settings(broker: KafkaProcess, prefix: str) -> Settings:
    made = from_tree({"kafka": {"bootstrap": broker.bootstrap, "prefix": prefix}})
    assert topics.ensure(made) == []
    return made


def letter(settings: Settings, value: bytes | None = EVENT, **changes: Any) -> DeadLetter:
    fields: dict[str, Any] = {
        "reason": "wrong_partition",
        "text": "it belongs elsewhere",
        "topic": Topics(settings).events,
        "partition": 3,
        "offset": 17,
        "append_time_ms": 1,
        "key": b"order-9",
        "value": value,
        "size": len(value or b""),
    }
    return DeadLetter(**(fields | changes))


def write(settings: Settings, *records: DeadLetter | bytes) -> None:
    producer = Producer({"bootstrap.servers": settings.kafka.bootstrap})
    for record in records:
        value = record if isinstance(record, bytes) else encode_dead_letter(record)
        producer.produce(Topics(settings).dead_letters, value, partition=0)
    assert producer.flush(60) == 0


def events(settings: Settings) -> list[tuple[int, bytes | None, bytes | None]]:
    return committed(settings, Topics(settings).events)


def run(settings: Settings, **options: Any) -> Summary:
    return replay(settings, stop=options.pop("stop", threading.Event()), **options)


def home(user_id: str) -> int:
    return partition_of(user_id, 4)


def test_letters_are_read_in_order_and_unreadable_records_are_none(settings: Settings) -> None:
    first = letter(settings, b"\xff\x00 bytes", reason="not_json")
    write(settings, first, b"no letter at all", letter(settings, None, reason="tombstone"))
    found = list(letters(settings))
    assert [one.number for one in found] == [0, 1, 2]
    assert [one.reason for one in found] == ["not_json", "unreadable", "tombstone"]
    assert found[0].content == first
    assert found[0].arrived_ms > 1_600_000_000_000
    assert [one.number for one in letters(settings, first=2)] == [2]


def test_a_letter_in_the_wrong_partition_goes_to_the_right_one(settings: Settings) -> None:
    write(settings, letter(settings, partition=(home("u1") + 1) % 4))
    assert run(settings) == Summary(sent=1, kept={}, next_letter=1, stopped=False)
    assert events(settings) == [(home("u1"), b"u1", EVENT)]


def test_a_user_id_may_be_a_number(settings: Settings) -> None:
    value = b'{"user_id": 1234, "item_id": "i", "type": "gaze", "time_ms": 5}'
    write(settings, letter(settings, value, reason="unknown_type"))
    run(settings)
    assert events(settings) == [(home("1234"), b"1234", value)]


@pytest.mark.parametrize(
    "value", [b"not json", b"[" * 5000, b"\xff", b'{"user_id": ""}', b'{"user_id": [1]}', None]
)
def test_without_a_user_id_bytes_key_and_partition_stay(
    settings: Settings, value: bytes | None
) -> None:
    write(settings, letter(settings, value, reason="not_json", partition=2))
    run(settings)
    assert events(settings) == [(2, b"order-9", value)]


def test_letters_of_another_topic_go_back_there(settings: Settings) -> None:
    topic = Topics(settings).users
    write(settings, letter(settings, topic=topic, partition=1), letter(settings, topic=topic))
    run(settings)
    assert sorted(committed(settings, topic)) == [(1, b"order-9", EVENT), (3, b"order-9", EVENT)]
    assert events(settings) == []


def test_what_cannot_go_back_is_kept_and_told(settings: Settings) -> None:
    write(
        settings,
        letter(settings, source="file:shop.csv", topic="shop.csv"),
        letter(settings, b"x" * 100, size=70_000, reason="too_large"),
        letter(settings, topic=f"{settings.kafka.prefix}.no-such-topic"),
        b"{}",
        letter(settings),
    )
    done = run(settings)
    assert done.sent == 1
    assert done.kept == {"cut": 1, "from_a_file": 1, "topic_is_gone": 1, "unreadable": 1}
    assert set(done.kept) <= set(dead_letters.KEPT)
    assert len(events(settings)) == 1


def test_twice_sends_nothing_twice(settings: Settings) -> None:
    write(settings, *(letter(settings) for _ in range(5)))
    assert run(settings).sent == 5
    assert run(settings).sent == 0
    assert len(events(settings)) == 5
    write(settings, letter(settings))
    assert run(settings).sent == 1
    assert len(events(settings)) == 6


def test_letters_that_arrive_meanwhile_wait_for_the_next_run(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each sent letter is refused again at once: the run must end all the same."""
    monkeypatch.setattr(dead_letters, "CHUNK_LETTERS", 2)
    write(settings, *(letter(settings) for _ in range(6)))

    def refuse(next_letter: int, end: int) -> None:
        assert end == 6
        write(settings, letter(settings), letter(settings))

    assert run(settings, progress=refuse).sent == 6
    assert len(events(settings)) == 6
    assert run(settings).sent == 6


def test_reasons_have_positions_of_their_own(settings: Settings) -> None:
    kinds = ["unknown_type", "wrong_partition", "unknown_type", "not_json"]
    for number, reason in enumerate(kinds):
        value = b'{"user_id": "u%d"}' % number
        write(settings, letter(settings, value, reason=reason))
    assert run(settings, reasons=frozenset(["unknown_type"])).sent == 2
    assert {key for _, key, _ in events(settings)} == {b"u0", b"u2"}
    assert run(settings, reasons=frozenset(["unknown_type"])).sent == 0
    assert run(settings).sent == 2
    assert sorted(key or b"" for _, key, _ in events(settings)) == [b"u0", b"u1", b"u2", b"u3"]


def test_a_stopped_run_is_gone_on_with(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letters, "CHUNK_LETTERS", 2)
    write(settings, *(letter(settings, b'{"user_id": "u%d"}' % n) for n in range(7)))
    stop = threading.Event()
    first = run(settings, stop=stop, progress=lambda *_: stop.set())
    assert (first.sent, first.next_letter, first.stopped) == (2, 2, True)
    assert run(settings).sent == 5
    assert len({key for _, key, _ in events(settings)}) == len(events(settings)) == 7


def spoiled(how: str) -> Callable[..., None]:
    """A transaction that fails once: half way, or after its commit, which nobody hears of."""
    transact = SourceWriter._transact
    calls = 0

    def spoil(writer: SourceWriter, records: Any, position: Any) -> None:
        nonlocal calls
        calls += 1
        lost = KafkaException(KafkaError(KafkaError._TIMED_OUT))
        if calls == 3 and how == "half way":
            writer._producer.begin_transaction()
            for topic, partition, key, value in records:
                writer._producer.produce(topic, value, key, partition)
            writer._producer.flush(5)
            raise lost
        transact(writer, records, position)
        if calls == 3:
            raise lost

    return spoil


@pytest.mark.parametrize("how", ["half way", "unheard"])
def test_a_transaction_that_fails_sends_nothing_twice(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setattr(dead_letters, "CHUNK_LETTERS", 2)
    monkeypatch.setattr(SourceWriter, "_transact", spoiled(how))
    write(settings, *(letter(settings, b'{"user_id": "u%d"}' % n) for n in range(7)))
    assert run(settings).sent == 7
    assert len({key for _, key, _ in events(settings)}) == len(events(settings)) == 7


def test_large_letters_are_sent_in_several_transactions(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letters, "CHUNK_BYTES", 100_000)
    value = b'{"user_id": "u1", "x": "' + b"x" * 60_000 + b'"}'
    write(settings, *(letter(settings, value) for _ in range(5)))
    steps: list[int] = []
    assert run(settings, progress=lambda done, _: steps.append(done)).sent == 5
    assert steps == [2, 4, 5]
    assert [found for _, _, found in events(settings)] == [value] * 5


@pytest.mark.slow
def test_letters_of_a_running_stream_count_once_however_often_they_are_sent(
    broker: KafkaProcess, prefix: str, tmp_path: Path
) -> None:
    settings = worker_settings(broker.bootstrap, prefix, tmp_path / "data")
    assert topics.ensure(settings) == []
    now_ms = time.time_ns() // 1_000_000
    good = b'{"user_id": "u1", "item_id": "i", "type": "view", "time_ms": %d}' % now_ms
    away = 1 - partition_of("u1", 2)
    producer = Producer({"bootstrap.servers": broker.bootstrap})
    for value in (good, good.replace(b"view", b"gaze"), b"no event"):
        producer.produce(Topics(settings).events, value, b"order-9", partition=away)
    assert producer.flush(60) == 0
    worker = WorkerProcess(settings, tmp_path / "worker.log")
    try:
        worker.wait_ready()
        for sent, total in ((3, 5), (2, 7), (2, 9)):
            # What is refused again comes back as a new letter: two of the first three do.
            wait_for_letters(settings, total - 2)
            assert run(settings).sent == sent
        wait_for_letters(settings, 9)
        # It stands in another partition than the letters' events do, and is counted by itself.
        deadline_s = time.monotonic() + 120
        while worker.metric("rheos_events_accepted_total") < 1:
            assert time.monotonic() < deadline_s
            time.sleep(0.2)
        assert worker.metric("rheos_events_accepted_total") == 1
        assert worker.metric("rheos_events_duplicate_total") == 0
    finally:
        worker.kill()


def wait_for_letters(settings: Settings, count: int) -> None:
    give_up_s = time.monotonic() + 120
    while (found := sum(1 for _ in letters(settings))) < count:
        assert time.monotonic() < give_up_s, f"{found} of {count} letters"
        time.sleep(0.2)
    assert found == count


def test_nothing_to_send_is_no_error(settings: Settings) -> None:
    assert run(settings) == Summary(sent=0, kept={}, next_letter=0, stopped=False)
    assert run(settings, reasons=ALL_REASONS).sent == 0
    assert list(letters(settings)) == []

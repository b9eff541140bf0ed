"""Reading a log to its end: over markers, aborted records and open transactions."""

import threading
import time

import pytest
from confluent_kafka import Producer

from rheos import topics
from rheos.local_kafka import KafkaProcess
from rheos.settings import Settings, from_tree
from rheos.topics import Topics
from stream.committed_log import CommittedLogError, end_of, read_committed

pytestmark = pytest.mark.kafka


@pytest.fixture
def settings(broker: KafkaProcess, prefix: str) -> Settings:
    made = from_tree({"kafka": {"bootstrap": broker.bootstrap, "prefix": prefix}})
    assert topics.ensure(made) == []
    return made


def transactional(settings: Settings, name: str) -> Producer:
    producer = Producer(
        {
            "bootstrap.servers": settings.kafka.bootstrap,
            "transactional.id": f"{settings.kafka.prefix}.{name}",
            "transaction.timeout.ms": 60_000,
        }
    )
    producer.init_transactions(60)
    return producer


def values(settings: Settings, start: int = 0) -> list[bytes | None]:
    topic = Topics(settings).replay
    found = read_committed(settings.kafka.bootstrap, topic, 0, start, silence_s=60)
    return [message.value() for message in found]


def test_an_empty_log_is_read_at_once(settings: Settings) -> None:
    assert values(settings) == []
    assert end_of(settings.kafka.bootstrap, Topics(settings).replay, 0) == 0


def test_markers_and_aborted_records_are_passed_over(settings: Settings) -> None:
    topic = Topics(settings).replay
    producer = transactional(settings, "one")
    for number in range(6):
        producer.begin_transaction()
        producer.produce(topic, b"%d" % number, b"key", partition=0)
        if number % 2:
            producer.flush(60)
            producer.abort_transaction(60)
        else:
            producer.commit_transaction(60)
    # Six records and six markers; the last record and the last two markers give nothing to read.
    assert end_of(settings.kafka.bootstrap, topic, 0) == 12
    assert values(settings) == [b"0", b"2", b"4"]
    assert values(settings, start=4) == [b"2", b"4"]
    assert values(settings, start=9) == []
    assert values(settings, start=12) == values(settings, start=50) == []


def test_what_was_committed_behind_an_open_transaction_is_waited_for(settings: Settings) -> None:
    """A read-committed consumer's own end lies before the open transaction: it would miss it."""
    topic = Topics(settings).replay
    slow, quick = transactional(settings, "slow"), transactional(settings, "quick")
    slow.begin_transaction()
    slow.produce(topic, b"open", b"key", partition=0)
    slow.flush(60)
    quick.begin_transaction()
    quick.produce(topic, b"committed", b"key", partition=0)
    quick.commit_transaction(60)
    ended_s: list[float] = []

    def end() -> None:
        time.sleep(1.5)
        ended_s.append(time.monotonic())
        slow.abort_transaction(60)

    thread = threading.Thread(target=end)
    thread.start()
    assert values(settings) == [b"committed"]
    assert time.monotonic() >= ended_s[0]
    thread.join()


def test_a_transaction_that_stays_open_is_an_error_in_the_end(settings: Settings) -> None:
    topic = Topics(settings).replay
    slow = transactional(settings, "slow")
    slow.begin_transaction()
    slow.produce(topic, b"open", b"key", partition=0)
    slow.flush(60)
    with pytest.raises(CommittedLogError, match=r"was read to 0 of 1; a transaction is open"):
        list(read_committed(settings.kafka.bootstrap, topic, 0, silence_s=1))
    slow.abort_transaction(60)


def test_a_topic_that_does_not_exist_is_named(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.committed_log.ASK_TIMEOUT_S", 1.0)
    with pytest.raises(CommittedLogError, match=r"no-such-topic\[0\]"):
        list(read_committed(settings.kafka.bootstrap, "no-such-topic", 0))

"""Topics of a test's own: made, filled and read back whole, committed records only."""

import time
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from rheos.state import CHECKPOINT_KEY


class Entry(NamedTuple):
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


def make_topics(
    bootstrap: str, topics: Mapping[str, int], config: Mapping[str, str] | None = None
) -> None:
    """Creates topics, each with its number of partitions, and waits until they are there."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    wanted = [NewTopic(name, count, 1, config=dict(config or {})) for name, count in topics.items()]
    for future in admin.create_topics(wanted).values():
        future.result(60)


def delete_topic(bootstrap: str, topic: str) -> None:
    """Deletes a topic and waits until its name is free."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    admin.delete_topics([topic])[topic].result(60)
    deadline = time.monotonic() + 60
    while topic in admin.list_topics(timeout=10).topics:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def cut_topic(bootstrap: str, topic: str, partition: int, before: int) -> None:
    """Deletes what lies below an offset, as retention does."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    place = TopicPartition(topic, partition, before)
    for future in admin.delete_records([place]).values():
        future.result(60)


def send(
    bootstrap: str,
    topic: str,
    records: Iterable[tuple[bytes | None, bytes | None]],
    partition: int | None = None,
) -> None:
    """Sends keys and values; without a partition each goes where Java's rule puts its key."""
    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "partitioner": "murmur2_random",
            "message.max.bytes": 20_000_000,
            "linger.ms": 5,
            "enable.idempotence": True,
        }
    )
    for number, (key, value) in enumerate(records):
        place = {} if partition is None else {"partition": partition}
        producer.produce(topic, value, key, **place)
        if number % 1000 == 0:
            producer.poll(0)
    assert producer.flush(60) == 0


def read(bootstrap: str, topic: str) -> list[list[Entry]]:
    """Every committed record of a topic, by partition."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "read-whole",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "fetch.message.max.bytes": 20_000_000,
            "fetch.wait.max.ms": 10,
        }
    )
    try:
        count = len(consumer.list_topics(topic, timeout=60).topics[topic].partitions)
        found: list[list[Entry]] = [[] for _ in range(count)]
        consumer.assign([TopicPartition(topic, number, 0) for number in range(count)])
        ended: set[int] = set()
        while len(ended) < count:
            for message in consumer.consume(5000, 0.05):
                if message.error() is None:
                    entry = Entry(
                        message.offset(), message.timestamp()[1], message.key(), message.value()
                    )
                    found[message.partition()].append(entry)
                else:
                    assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
                    ended.add(message.partition())
        return found
    finally:
        consumer.close()


def latest(log: list[list[Entry]]) -> dict[str, bytes]:
    """The values of a compacted topic, checkpoints aside."""
    values: dict[str, bytes] = {}
    for entries in log:
        for entry in entries:
            if entry.key == CHECKPOINT_KEY:
                continue
            assert entry.key is not None
            if entry.value is None:
                values.pop(entry.key.decode(), None)
            else:
                values[entry.key.decode()] = entry.value
    return values

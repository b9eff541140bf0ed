"""The catalogue as the trainer reads it: what is known of items and users beside their events."""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from kafka import KafkaConsumer, TopicPartition

from rheos.catalogue import InvalidRecordError, Item, UserAttributes, decode_item, decode_user
from rheos.settings import Settings
from rheos.topics import Topics
from trainer.data_set import DataSet
from trainer.models.model import Capability

log = logging.getLogger(__name__)

READERS: frozenset[Capability] = frozenset({"cold_items", "attributes"})
"""What a model must be able to do for its fit to look at the catalogue."""
POLL_MS = 500

R = TypeVar("R", Item, UserAttributes)


def with_catalogue(data: DataSet, settings: Settings) -> DataSet:
    """``data`` with the records of all items and of its own users, and the declared features.

    The latest record of a key counts, up to the topics' ends as they are now; deleted items are
    left out. Blocks while it reads. Raises KafkaError.
    """
    topics = Topics(settings)
    items = _latest(settings, topics.items, decode_item, lambda item_id: True)
    own = set(data.user_ids)
    users = _latest(settings, topics.users, decode_user, own.__contains__)
    return replace(
        data,
        items_known={name: item for name, item in items.items() if not item.deleted},
        users_known=users,
        features=settings.features,
    )


def _latest(
    settings: Settings, topic: str, decode: Callable[[bytes], R], wanted: Callable[[str], bool]
) -> dict[str, R]:
    """The latest readable record of each wanted key of a compacted topic, read committed."""
    found: dict[str, R] = {}
    ends = _ends(settings, topic)
    if not ends:
        log.warning("there is no topic %s: nothing is known beside the events", topic)
        return found
    refused = 0
    consumer = _consumer(settings, "read_committed")
    try:
        consumer.assign(list(ends))
        consumer.seek_to_beginning()
        # Positions pass what a reader never sees: markers, aborted and compacted records.
        while any(consumer.position(at) < end for at, end in ends.items()):
            for records in consumer.poll(timeout_ms=POLL_MS).values():
                for record in records:
                    try:
                        key = (record.key or b"").decode()
                        if not wanted(key):
                            continue
                        if record.value is None:
                            found.pop(key, None)
                        else:
                            found[key] = decode(record.value)
                    except (InvalidRecordError, UnicodeDecodeError):
                        refused += 1
    finally:
        consumer.close()
    if refused:
        log.warning("%s: %d records are not used; the indexer's log names them", topic, refused)
    return found


def _ends(settings: Settings, topic: str) -> dict[TopicPartition, int]:
    """The ends of a topic's partitions, asked read-uncommitted; empty if there is no such topic.

    A read-committed end would stop before another producer's open transaction.
    """
    consumer = _consumer(settings, "read_uncommitted")
    try:
        numbers = consumer.partitions_for_topic(topic) or set()
        partitions = [TopicPartition(topic, number) for number in sorted(numbers)]
        return dict(consumer.end_offsets(partitions)) if partitions else {}
    finally:
        consumer.close()


def _consumer(settings: Settings, isolation_level: str) -> KafkaConsumer:
    return KafkaConsumer(
        bootstrap_servers=settings.kafka.bootstrap.split(","),
        group_id=None,
        enable_auto_commit=False,
        isolation_level=isolation_level,
        auto_offset_reset="earliest",
        allow_auto_create_topics=False,
        reconnect_backoff_max_ms=1000,
    )

"""Which generation rules: the compacted topic ``rheos.generations``, written and read here.

Every process reads the whole topic itself, from its start, without a consumer group; the latest
announcement of a slot rules. Rolling back is a new announcement that names an older generation.
A record that is no announcement is passed over and logged: one must not stop every process.
"""

import logging
import threading
from collections.abc import Callable, Iterator

import msgspec
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from rheos.settings import Settings
from rheos.topics import Topics

SERVING = "serving"
_WITHDRAWN = "withdrawn/"


def withdrawn_slot(generation: str) -> str:
    """The slot of the decision that a generation is not to serve again: one each, so that
    compaction keeps them all.
    """
    return _WITHDRAWN + generation


def is_withdrawn_slot(slot: str) -> bool:
    return slot.startswith(_WITHDRAWN)


class Announcement(msgspec.Struct, frozen=True, kw_only=True):
    """One decision. ``number`` counts a slot's decisions from 1. ``predecessor`` is where to roll
    back to: the generation that ruled before, or none.
    """

    number: int
    slot: str
    generation: str
    reason: str
    time_ms: int
    predecessor: str = ""


_decode = msgspec.json.Decoder(Announcement).decode

_log = logging.getLogger(__name__)


def announce(settings: Settings, announcement: Announcement) -> None:
    """Writes a decision and waits for the broker's acknowledgement. Raises KafkaError."""
    producer = KafkaProducer(bootstrap_servers=settings.kafka.bootstrap.split(","), acks="all")
    try:
        producer.send(
            Topics(settings).generations,
            key=announcement.slot.encode(),
            value=msgspec.json.encode(announcement),
            partition=0,
        ).get(timeout=30)
    finally:
        producer.close()


def read_all(settings: Settings) -> list[Announcement]:
    """All announcements that the topic still holds, oldest first. Raises KafkaError."""
    with _Reader(settings) as reader:
        return list(reader.to_end())


def ruling(settings: Settings, slot: str = SERVING) -> Announcement | None:
    """The announcement that rules a slot now, or None before the first."""
    latest = [found for found in read_all(settings) if found.slot == slot]
    return latest[-1] if latest else None


def follow(
    settings: Settings,
    on_announcement: Callable[[Announcement], None],
    stop: threading.Event,
    slot: str = SERVING,
) -> None:
    """Calls back with the ruling announcement of a slot, then with each new one, until ``stop``.

    Blocks: give it a thread. Announcements that were overruled before they were read are passed
    over. What ``on_announcement`` raises ends the following.
    """
    with _Reader(settings) as reader:
        latest = [found for found in reader.to_end() if found.slot == slot]
        if latest:
            on_announcement(latest[-1])
        while not stop.is_set():
            latest = [found for found in reader.poll(500) if found.slot == slot]
            if latest:
                on_announcement(latest[-1])


class _Reader:
    """The topic's one partition, read committed, from its beginning."""

    def __init__(self, settings: Settings) -> None:
        self._partition = TopicPartition(Topics(settings).generations, 0)
        self._consumer = KafkaConsumer(
            bootstrap_servers=settings.kafka.bootstrap.split(","),
            group_id=None,
            enable_auto_commit=False,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
        )
        self._consumer.assign([self._partition])
        self._consumer.seek_to_beginning(self._partition)

    def __enter__(self) -> "_Reader":
        return self

    def __exit__(self, *exception: object) -> None:
        self._consumer.close()

    def to_end(self) -> Iterator[Announcement]:
        end = self._consumer.end_offsets([self._partition])[self._partition]
        while self._consumer.position(self._partition) < end:
            yield from self.poll(500)

    def poll(self, timeout_ms: int) -> Iterator[Announcement]:
        for records in self._consumer.poll(timeout_ms=timeout_ms).values():
            for record in records:
                if record.value is None:
                    continue
                try:
                    found = _decode(record.value)
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                    place = f"{record.topic}[{record.partition}]@{record.offset}"
                    _log.error("%s is no announcement: %s", place, error)
                else:
                    yield found

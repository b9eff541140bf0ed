"""Fills the archive from the events topic: read committed, without a group, exactly once."""

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Self

import msgspec
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition

from rheos import metrics
from rheos.events import Event, InvalidEvent, event_hash
from rheos.ids import partition_of
from rheos.settings import Settings
from rheos.topics import Topics
from trainer.archive import SCHEMA, Archive, ArchiveConflictError, ArchiveError

log = logging.getLogger(__name__)

FLUSH_ROWS = 50_000
FLUSH_BYTES = 64 * 1024 * 1024
"""A partition's buffer goes to a file when it has so many records, or bytes of values."""

_POLL_RECORDS = 5_000
_PATIENCE = {"bootstrap_timeout_ms": 5_000, "reconnect_backoff_max_ms": 1_000}
_encode_context = msgspec.json.Encoder().encode


class Archiver:
    """Reads the events topic from where the archive ends. One thread; close it, or use ``with``.

    Records that the stream refuses (``EventRules.decode``, a user of another partition) are left
    out here by the same rules; the stream dead-letters them. What is buffered and not committed
    when the process dies is read again.

    ``complete_ms``: what had arrived by then is archived, as of the last ``measure``.

    Raises ArchiveError when the topic is missing, was replaced or cut; KafkaError.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topic = Topics(settings).events
        bootstrap = settings.kafka.bootstrap.split(",")
        self._admin = KafkaAdminClient(bootstrap_servers=bootstrap, **_PATIENCE)
        try:
            topic_id, partitions = self._describe()
            self.archive = Archive(settings.archive_dir, topic_id)
            self._consumer = KafkaConsumer(
                bootstrap_servers=bootstrap,
                **_PATIENCE,
                group_id=None,
                enable_auto_commit=False,
                isolation_level="read_committed",
                auto_offset_reset="earliest",
                max_partition_fetch_bytes=4 * 1024 * 1024,
            )
        except BaseException:
            self._admin.close()
            raise
        self._partitions = [TopicPartition(self._topic, number) for number in partitions]
        self._buffers = {
            place: _Buffer(settings, place.partition, len(partitions)) for place in self._partitions
        }
        self._begins: dict[TopicPartition, int] = {}
        self.complete_ms = 0
        self._awaited: dict[TopicPartition, int] = {}
        self._awaited_ms = 0
        try:
            self._consumer.assign(self._partitions)
            for place in self._partitions:
                self._seek(place)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the connections; what is buffered is dropped, and read again another time."""
        self._consumer.close()
        self._admin.close()

    def poll(self, timeout_ms: int) -> int:
        """Takes what Kafka has, commits full buffers; returns the number of records taken."""
        taken = 0
        polled = self._consumer.poll(timeout_ms=timeout_ms, max_records=_POLL_RECORDS)
        for place, records in polled.items():
            buffer = self._buffers[place]
            buffer.take(records)
            buffer.end = self._consumer.position(place)
            taken += len(records)
            if buffer.is_full():
                self._flush([place])
        return taken

    def flush(self) -> None:
        """Commits all that is buffered."""
        self._flush([place for place, buffer in self._buffers.items() if buffer.records])

    def catch_up(self, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Archives up to the ends that the partitions have now. ``progress`` (done, total)."""
        ends = self._consumer.end_offsets(self._partitions)
        begin_left = left = self._left(ends)
        while left:
            progress(begin_left - left, begin_left)
            self.poll(500)
            # The poll moved a position at least past markers; what is read up to the ends is
            # committed, and where another process was quicker, the position may have gone back.
            left = self._left(ends)
            if not left:
                self.flush()
                left = self._left(ends)
        progress(begin_left, begin_left)
        self.measure()

    def _left(self, ends: Mapping[TopicPartition, int]) -> int:
        return sum(max(0, end - self._consumer.position(place)) for place, end in ends.items())

    def records(self) -> int:
        """How many positions are archived or buffered, in all."""
        return sum(self._buffers[place].end - begin for place, begin in self._begins.items())

    def records_until(self, window: Mapping[str, tuple[int, int]]) -> int:
        """How many positions were archived when a fit read up to the ends of ``window``."""
        ends = {int(name): end for name, (_, end) in window.items()}
        return sum(
            max(0, ends.get(place.partition, 0) - begin) for place, begin in self._begins.items()
        )

    def measure(self) -> int:
        """The positions not yet archived, in all; sets the gauges. One round trip."""
        now_ms = time.time_ns() // 1_000_000
        ends = self._consumer.end_offsets(self._partitions)
        if self._is_archived_to(self._awaited):
            self.complete_ms = self._awaited_ms
            self._awaited, self._awaited_ms = ends, now_ms
        lag = 0
        for place, end in ends.items():
            behind = max(0, end - self._done(place))
            metrics.ARCHIVE_LAG_MESSAGES.labels(str(place.partition)).set(behind)
            lag += behind
        if not lag:
            self.complete_ms = now_ms
        return lag

    def _is_archived_to(self, ends: Mapping[TopicPartition, int]) -> bool:
        return all(self._done(place) >= end for place, end in ends.items())

    def _done(self, place: TopicPartition) -> int:
        """The position up to which a partition is archived."""
        buffer = self._buffers[place]
        # Past markers and aborted records the position moves with nothing to archive.
        return buffer.start if buffer.records else int(self._consumer.position(place))

    def _flush(self, places: list[TopicPartition]) -> None:
        if not places:
            return
        # The id is asked after the records were read: what was read between two equal answers is
        # of one topic.
        topic_id, _ = self._describe()
        if topic_id != self.archive.topic_id:
            raise ArchiveError(
                f"topic {self._topic} was replaced while it was read (id {self.archive.topic_id},"
                f" now {topic_id}); reading starts again with the new one"
            )
        for place in places:
            buffer = self._buffers[place]
            try:
                self.archive.commit(place.partition, buffer.start, buffer.end, buffer.columns())
            except ArchiveConflictError as conflict:
                log.debug("another process was quicker: %s", conflict)
                self._seek(place)
                continue
            for reason, count in buffer.skipped.items():
                metrics.ARCHIVE_SKIPPED.labels(reason).inc(count)
            buffer.clear(buffer.end)
            metrics.ARCHIVE_OFFSET.labels(str(place.partition)).set(buffer.start)

    def _seek(self, place: TopicPartition) -> None:
        """Puts a partition where its archive ends. Raises ArchiveError if the log ends before."""
        begin = self._consumer.beginning_offsets([place])[place]
        end = self._consumer.end_offsets([place])[place]
        position = self.archive.position(place.partition)
        if position is None:
            position = begin
        elif position > end:
            raise ArchiveError(
                f"{self._topic}[{place.partition}] ends at {end}, but is archived to {position}:"
                f" the log was cut. Move {self.archive.directory} away to archive it anew"
            )
        elif position < begin:
            try:
                self.archive.commit(place.partition, position, begin, _no_rows())
            except ArchiveConflictError as conflict:
                log.debug("another process was quicker: %s", conflict)
                self._seek(place)
                return
            log.error(
                "%s[%d] begins at %d now: its events %d to %d were deleted by retention before"
                " they were archived; the archive goes on without them",
                *(self._topic, place.partition, begin, position, begin - 1),
            )
            position = begin
        self._begins[place] = self.archive.begin(place.partition, position)
        self._consumer.seek(place, position)
        self._buffers[place].clear(position)
        metrics.ARCHIVE_OFFSET.labels(str(place.partition)).set(position)

    def _describe(self) -> tuple[str, list[int]]:
        found = self._admin.describe_topics([self._topic])[0]
        if found["error_code"]:
            raise ArchiveError(f"topic {self._topic} does not exist; `rheos topics` creates it")
        partitions = sorted(entry["partition_index"] for entry in found["partitions"])
        expected = self._settings.kafka.events_partitions
        if len(partitions) != expected:
            raise ArchiveError(
                f"topic {self._topic} has {len(partitions)} partitions, the settings say"
                f" {expected}; change kafka.events_partitions, or start under another prefix"
            )
        return str(found["topic_id"]), partitions


class _Buffer:
    """Records of one partition, offsets [start, end), that are not in the archive yet."""

    def __init__(self, settings: Settings, partition: int, partitions: int) -> None:
        self._rules = settings.event_rules()
        self._partition = partition
        self._partitions = partitions
        self.clear(0)

    def clear(self, position: int) -> None:
        self.start = self.end = position
        self.records = 0
        self.skipped: Counter[str] = Counter()
        self._bytes = 0
        self._rows: list[tuple[Any, ...]] = []

    def is_full(self) -> bool:
        return self.records >= FLUSH_ROWS or self._bytes >= FLUSH_BYTES

    def take(self, records: list[Any]) -> None:
        decode, rows = self._rules.decode, self._rows
        for record in records:
            try:
                event = decode(record.value, record.timestamp)
            except InvalidEvent as error:
                self.skipped[error.reason] += 1
                continue
            if partition_of(event.user_id, self._partitions) != self._partition:
                self.skipped["wrong_partition"] += 1
                continue
            rows.append(_row(record.offset, record.timestamp, event))
            self._bytes += len(record.value)
        self.records += len(records)

    def columns(self) -> dict[str, Any]:
        if not self._rows:
            return _no_rows()
        return dict(zip(SCHEMA.names, zip(*self._rows, strict=True), strict=True))


def _row(offset: int, append_time_ms: int, event: Event) -> tuple[Any, ...]:
    """An event as SCHEMA's columns."""
    return (
        offset,
        append_time_ms,
        event_hash(event),
        event.user_id,
        event.item_id,
        event.type,
        event.time_ms,
        event.value,
        event.event_id or None,
        event.session_id,
        event.request_id,
        None if event.context is None else _encode_context(event.context).decode(),
    )


def _no_rows() -> dict[str, Any]:
    return {name: [] for name in SCHEMA.names}

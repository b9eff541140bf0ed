"""Faust's consumer, handing on a chunk of records at a time instead of a record at a time.

Faust spends four asyncio tasks on every message before an agent sees it: 8-12 thousand messages
a second on a core, whatever the agent does. Here one Faust event carries a chunk of one
partition's records, and the cost is spread over hundreds. Agents, acknowledgement, the commit
loop and rebalancing stay Faust's.

What it overrides, why, and how a new Faust is noticed: docs/adr/0001-micro-batch-consumer.md.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from typing import Any

import aiokafka
import faust
from aiokafka.errors import KafkaError, NoOffsetForPartitionError, OffsetOutOfRangeError
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.transport.consumer import ensure_TP
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread, Consumer
from faust.types import TP, ConsumerMessage

from stream.chunk import Chunk

# While a partition is held back, the fetch in progress does not know when it is let go again.
_SHORT_POLL_S = 0.05

_log = logging.getLogger(__name__)


class ChunkSchema(faust.Schema):  # type: ignore[misc]
    """Hands a chunk to the agent as it is: decoding is the fold's, a bad record a dead letter."""

    def compile(self, app: faust.App, **_: Any) -> Callable[..., Awaitable[Any]]:
        create_event = app.create_event

        async def decode(message: ConsumerMessage, *, propagate: bool = False) -> Any:
            return create_event(message.key, message.value, message.headers, message)

        return decode


class CommittedReader(AIOKafkaConsumerThread):  # type: ignore[misc]
    """Faust's consumer thread, reading committed records only.

    Faust asks for that only in its own ``exactly_once``, which this is instead of.
    """

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        # Read once, by the fetcher that the consumer makes when it starts.
        consumer._isolation_level = "read_committed"
        return consumer

    async def _commit(self, offsets: Mapping[TP, int]) -> bool:
        """Writes the group's offsets. They are for onlookers, so a failure does not matter, while
        Faust would end the worker.
        """
        mine = self.assignment()
        places = {
            TopicPartition(*partition): OffsetAndMetadata(offset, "")
            for partition, offset in offsets.items()
            if partition in mine
        }
        try:
            await self._ensure_consumer().commit(places)
        except KafkaError as error:
            _log.info("the group's offsets were not written: %s", error)
            return False
        return True

    def __post_init__(self) -> None:
        super().__post_init__()
        self._read_to: dict[TP, tuple[int, int]] = {}  # where the next chunk begins, the reading

    async def begin(self, partition: TP, offset: int, reading: int) -> None:
        """Reads a partition from ``offset`` on; chunks say which reading they belong to."""
        await self.call_thread(self._begin, partition, offset, reading)

    async def _begin(self, partition: TP, offset: int, reading: int) -> None:
        self._ensure_consumer().seek(TopicPartition(*partition), offset)
        self._read_to[partition] = (offset, reading)

    async def _fetch_records(
        self,
        consumer: aiokafka.AIOKafkaConsumer,
        active_partitions: set[TP],
        timeout: float | None = None,
        max_records: int | None = None,
    ) -> dict[TP, Chunk]:
        """A chunk for each partition whose position moved, with or without records.

        In the thread of the consumer, where nothing comes between taking records and noting where
        they end: if a chunk is lost on its way, the next one shows it.
        """
        fetched = await super()._fetch_records(
            consumer, active_partitions, timeout=timeout, max_records=max_records
        )
        chunks = {}
        for partition in active_partitions:
            begin, reading = self._read_to[partition]
            position = self._position(consumer, partition)
            if position > begin:
                records = fetched.get(partition, ())
                chunks[partition] = Chunk(begin, records, position, reading)
                self._read_to[partition] = (position, reading)
        return chunks

    def _position(self, consumer: aiokafka.AIOKafkaConsumer, partition: TP) -> int:
        """The offset of the next fetch; -1 when the partition is not ours any more."""
        assignment = consumer._subscription.subscription.assignment
        if assignment is None or partition not in assignment.tps:
            return -1
        state = assignment.state_value(partition)
        return int(state.position) if state.has_valid_position else -1


class _NoReadOffsets(dict[TP, int]):
    """Faust drops what lies below the offset that it handed on last. A partition may have good
    reason to read that again, and knows itself what it has folded.
    """

    def __getitem__(self, partition: TP) -> None:  # type: ignore[override]
        return None

    def __setitem__(self, partition: TP, offset: int) -> None:
        pass


class MicroBatchConsumer(Consumer):  # type: ignore[misc]
    """Yields chunks; reads a partition only after ``begin`` said from where.

    So the group's committed offset decides nothing: it is written for those who watch the group's
    lag. ``chunk_records`` bounds a chunk; ``on_cut`` is called with a partition whose next offset
    the broker does not have (any more).
    """

    chunk_records: int
    on_cut: Callable[[TP], None]

    def _new_consumer_thread(self) -> CommittedReader:
        return CommittedReader(self, loop=self.loop, beacon=self.beacon)

    def _reset_state(self) -> None:
        super()._reset_state()
        self._read_offset = _NoReadOffsets()
        self._held: set[TP] = set()
        self._wake = asyncio.Event()

    async def begin(self, partition: TP, offset: int, reading: int) -> None:
        """Read an assigned partition from ``offset`` on, in chunks marked with ``reading``.

        Waits until a rebalance in progress has ended. Raises IllegalStateError if the partition
        is not assigned any more.
        """
        await self.can_resume_flow.wait()
        await self._thread.begin(partition, offset, reading)
        # A state that is rebuilt is read again from below what the group once committed.
        self._committed_offset.pop(partition, None)
        self._held.discard(partition)
        super().resume_partitions({partition})
        self._wake.set()

    def hold(self, partition: TP) -> None:
        """Hand on nothing more of a partition, but what has been fetched already."""
        self._held.add(partition)

    def release(self, partition: TP) -> None:
        """Undo ``hold``."""
        self._held.discard(partition)
        self._wake.set()

    def lag(self, partition: TP, next_offset: int) -> int:
        """Positions of the log at or above ``next_offset``; markers at its end are no lag for
        long, since the checkpoint moves past them.
        """
        return max(0, (self.highwater(partition) or 0) - next_offset)

    async def perform_seek(self) -> None:
        """Nothing: after a rebalance Faust seeks to the group's offsets; here ``begin`` seeks."""

    def resume_partitions(self, tps: Iterable[TP]) -> None:
        """Nothing: after a rebalance Faust resumes everything at once; here ``begin`` does."""

    async def on_partitions_revoked(self, revoked: set[TP]) -> None:
        self._held.difference_update(revoked)
        await super().on_partitions_revoked(revoked)

    async def getmany(self, timeout: float) -> AsyncIterator[tuple[TP, ConsumerMessage]]:
        if not self.flow_active:
            await self.wait(self.can_resume_flow)
        active = self._get_active_partitions() - self._held
        if not active:
            self._wake.clear()
            await self.wait(self._wake, timeout=timeout)
            return
        try:
            fetched = await self._getmany(active, _SHORT_POLL_S if self._held else timeout)
        except OffsetOutOfRangeError as error:
            for partition in map(ensure_TP, error.args[0]):
                self.hold(partition)
                self.on_cut(partition)
            return
        except NoOffsetForPartitionError:
            # The fetch waited through a rebalance, and then for a partition that is ours again and
            # that the group has no offset of. It needs none: `begin` says from where.
            return
        for partition, chunk in fetched.items():
            self.app.monitor.track_tp_end_offset(partition, self.highwater(partition))
            for part in _split(chunk, self.chunk_records):
                # A rebalance began. Its end begins anew where the state stands: nothing is lost.
                if self.should_stop or not self.flow_active:
                    return
                yield partition, self._message(partition, part)

    def _message(self, partition: TP, chunk: Chunk) -> ConsumerMessage:
        return ConsumerMessage(
            topic=partition.topic,
            partition=partition.partition,
            offset=chunk.next_offset - 1,
            timestamp=chunk.records[-1].timestamp / 1000 if chunk.records else 0.0,
            timestamp_type=1,  # LogAppendTime
            headers=None,
            key=None,
            value=chunk,
            checksum=None,
            serialized_key_size=0,
            serialized_value_size=len(chunk.records),
            tp=partition,
            # Of now: a fetch may have waited through a rebalance and then read what is ours again.
            # Whether a chunk is wanted still is told by its reading.
            generation_id=self.app.consumer_generation_id,
        )

    def _new_offset(self, tp: TP) -> int | None:
        """The group's offset: after the last chunk acknowledged; a partition acks in log order."""
        acknowledged = self._acked[tp]
        if not acknowledged:
            return None
        last = max(acknowledged)
        acknowledged.clear()
        self._acked_index[tp].clear()
        return int(last) + 1

    def verify_event_path(self, now: float, tp: TP) -> None:
        """Nothing: Faust would call a partition stuck that waits for its state or its broker."""


def _split(chunk: Chunk, size: int) -> Iterable[Chunk]:
    records, begin = chunk.records, chunk.begin
    if len(records) <= size:
        yield chunk
        return
    for start in range(0, len(records), size):
        part = records[start : start + size]
        is_last = start + size >= len(records)
        next_offset = chunk.next_offset if is_last else part[-1].offset + 1
        yield Chunk(begin, part, next_offset, chunk.reading)
        begin = next_offset


def install(app: faust.App, chunk_records: int, on_cut: Callable[[TP], None]) -> None:
    """Makes ``app`` consume by micro-batch. Before the app starts."""
    members = {"chunk_records": chunk_records, "on_cut": staticmethod(on_cut)}
    app.transport.Consumer = type("AppConsumer", (MicroBatchConsumer,), members)

"""Writes records to Kafka for the API and waits for the broker's acknowledgement, without blocking.

A failed write has an unknown outcome: a client that sends the same ``event_id`` again is safe.
"""

import asyncio
import logging
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from kafka import KafkaProducer
from kafka.errors import KafkaConnectionError, KafkaError

from rheos.bootstrap import is_reachable
from rheos.settings import Settings

log = logging.getLogger(__name__)

DELIVERY_S = 10
METADATA_S = 5
CLOSE_S = 1.0


class NotWrittenError(Exception):
    """The broker did not acknowledge in time; some of the records may stand in the log."""


class Record(NamedTuple):
    """What to write and where; ``value`` None is a tombstone."""

    topic: str
    partition: int
    key: bytes
    value: bytes | None


class Written(NamedTuple):
    """Where a record stands."""

    partition: int
    offset: int


class EventWriter:
    """One idempotent producer, acks=all. After a failure a new one takes its place: a producer
    whose sequence broke would fail forever.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._producer: KafkaProducer | None = None
        self._number = 0  # of producers dropped so far
        # Sending waits for metadata when the broker is away: not on the event loop.
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="event-writer")

    async def write(self, records: Sequence[Record]) -> list[Written]:
        """Writes all and returns where each stands, in order. Raises NotWrittenError."""
        loop = asyncio.get_running_loop()
        acknowledged: asyncio.Future[list[Written]] = loop.create_future()
        batch = _Batch(len(records), loop, acknowledged)
        number = self._number
        try:
            async with asyncio.timeout(METADATA_S + DELIVERY_S):
                await loop.run_in_executor(self._pool, self._send, records, batch)
                return await acknowledged
        except (KafkaError, TimeoutError) as error:
            self._pool.submit(self._renew, number)
            raise NotWrittenError(f"Kafka did not acknowledge: {error!r}") from error

    def close(self) -> None:
        """Waits about a second for what is on its way."""
        self._pool.submit(self._renew, self._number).result()
        self._pool.shutdown()

    def _send(self, records: Sequence[Record], batch: "_Batch") -> None:
        if self._producer is None:
            if not is_reachable(self._settings.kafka.bootstrap):
                raise KafkaConnectionError(f"no broker at {self._settings.kafka.bootstrap}")
            self._producer = KafkaProducer(
                bootstrap_servers=self._settings.kafka.bootstrap.split(","),
                acks="all",
                max_block_ms=METADATA_S * 1000,
                delivery_timeout_ms=DELIVERY_S * 1000,
                request_timeout_ms=DELIVERY_S * 500,
                bootstrap_timeout_ms=METADATA_S * 1000,
                reconnect_backoff_max_ms=1000,
                allow_auto_create_topics=False,
            )
        for place, record in enumerate(records):
            try:
                sent = self._producer.send(
                    record.topic, value=record.value, key=record.key, partition=record.partition
                )
            except ValueError as error:  # such as a partition that the topic does not have
                raise NotWrittenError(f"{record.topic} does not take it: {error}") from error
            sent.add_callback(batch.done, place)
            sent.add_errback(batch.failed)

    def _renew(self, number: int) -> None:
        """Drops the producer, unless another write's failure already dropped that one."""
        if number != self._number or self._producer is None:
            return
        producer, self._producer = self._producer, None
        self._number += 1
        try:
            producer.close(timeout=CLOSE_S)
        except KafkaError as error:
            log.warning("closing a producer: %r", error)


class _Batch:
    """Counts acknowledgements, which come from the producer's thread."""

    def __init__(
        self,
        count: int,
        loop: asyncio.AbstractEventLoop,
        acknowledged: "asyncio.Future[list[Written]]",
    ) -> None:
        self._written: list[Written | None] = [None] * count
        self._left = count
        self._loop = loop
        self._acknowledged = acknowledged
        self._lock = threading.Lock()

    def done(self, place: int, metadata: Any) -> None:
        with self._lock:
            self._written[place] = Written(metadata.partition, metadata.offset)
            self._left -= 1
            if self._left:
                return
        self._loop.call_soon_threadsafe(self._resolve)

    def failed(self, error: BaseException) -> None:
        self._loop.call_soon_threadsafe(self._reject, error)

    def _resolve(self) -> None:
        if not self._acknowledged.done():
            self._acknowledged.set_result([one for one in self._written if one is not None])

    def _reject(self, error: BaseException) -> None:
        if not self._acknowledged.done():
            self._acknowledged.set_exception(error)
            self._acknowledged.exception()  # seen, even where nobody waits any more

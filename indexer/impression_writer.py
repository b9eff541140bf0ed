"""Answers on their way to ``rheos.impressions``: never slows or fails a query.

Bounded on both sides of its thread; what does not fit is counted and left out.
"""

import logging
import queue
import threading

from kafka import KafkaProducer
from kafka.errors import KafkaConnectionError, KafkaError

from rheos import metrics
from rheos.bootstrap import is_reachable
from rheos.ids import partition_of
from rheos.impressions import Impression, encode_impression
from rheos.settings import Settings
from rheos.topics import Topics

log = logging.getLogger(__name__)

MOST_QUEUED = 10_000
MOST_UNACKNOWLEDGED = 5_000
DELIVERY_S = 30
RETRY_S = 1.0
FLUSH_S = 1.0
CLOSE_S = 3.0  # a thread that waits for an absent Kafka is left behind; it is a daemon


class ImpressionWriter:
    """A thread with a producer of its own. ``start`` first."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._topic = Topics(settings).impressions
        self._queue: queue.Queue[Impression | None] = queue.Queue(MOST_QUEUED)
        self._unacknowledged = threading.Semaphore(MOST_UNACKNOWLEDGED)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="impressions", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def put(self, impression: Impression) -> None:
        """Takes an answer, or counts it as lost. Returns at once."""
        try:
            self._queue.put_nowait(impression)
        except queue.Full:
            metrics.IMPRESSIONS_LOST.inc()

    def close(self) -> None:
        """Waits about a second for what is on its way; the rest is lost."""
        self._stopping.set()
        try:
            self._queue.put_nowait(None)
        except queue.Full:
            log.debug("the queue of impressions is full; its thread sees the stop by itself")
        if self._thread.ident is not None:
            self._thread.join(CLOSE_S)

    def _run(self) -> None:
        producer: KafkaProducer | None = None
        while (impression := self._queue.get()) is not None and not self._stopping.is_set():
            try:
                if producer is None:
                    producer = self._new_producer()
                self._send(producer, impression)
            except (KafkaError, ValueError) as error:  # ValueError: the topic has no such partition
                metrics.IMPRESSIONS_LOST.inc()
                log.warning("an answer was not written to %s: %r", self._topic, error)
                self._stopping.wait(RETRY_S)  # meanwhile the queue fills, and is bounded
        if producer is not None:
            try:
                producer.close(timeout=FLUSH_S)
            except KafkaError as error:
                log.warning("closing the producer of impressions: %r", error)

    def _new_producer(self) -> KafkaProducer:
        if not is_reachable(self._settings.kafka.bootstrap):
            raise KafkaConnectionError(f"no broker at {self._settings.kafka.bootstrap}")
        return KafkaProducer(
            bootstrap_servers=self._settings.kafka.bootstrap.split(","),
            acks="all",
            linger_ms=20,  # nobody waits for these: fewer requests
            max_block_ms=1000,
            bootstrap_timeout_ms=1000,
            delivery_timeout_ms=DELIVERY_S * 1000,
            request_timeout_ms=DELIVERY_S * 500,
            reconnect_backoff_max_ms=1000,
            allow_auto_create_topics=False,
        )

    def _send(self, producer: KafkaProducer, impression: Impression) -> None:
        if not self._unacknowledged.acquire(timeout=1.0):
            metrics.IMPRESSIONS_LOST.inc()
            return
        # An anonymous answer has no key; its request id spreads it.
        user = impression.user_id
        key = impression.request_id if user is None else user
        try:
            sent = producer.send(
                self._topic,
                value=encode_impression(impression),
                key=None if user is None else user.encode(),
                partition=partition_of(key, self._settings.kafka.events_partitions),
            )
        except BaseException:
            self._unacknowledged.release()
            raise
        sent.add_callback(self._acknowledge)
        sent.add_errback(self._lose)

    def _acknowledge(self, metadata: object) -> None:
        self._unacknowledged.release()
        metrics.IMPRESSIONS.inc()

    def _lose(self, error: BaseException) -> None:
        self._unacknowledged.release()
        metrics.IMPRESSIONS_LOST.inc()

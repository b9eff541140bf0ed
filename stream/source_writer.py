"""A source's records and its position, written together: what `replay` and `dead-letters` share."""

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec
from confluent_kafka import KafkaError, KafkaException, Producer

from rheos.settings import Settings
from rheos.topics import Topics
from stream.committed_log import CommittedLogError, read_committed

KAFKA_TIMEOUT_S = 10.0
LOOK_UP_S = 1.0  # how long a stop may wait for a call to Kafka
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 8.0
ATTEMPTS = 8
"""Times that a transaction may fail although Kafka is there and lets the source be opened."""


class SourceError(RuntimeError):
    """The source cannot go on; the text says why and what to do. Nothing of it is half written."""


class Stopped(Exception):
    """The caller's ``stop`` was set while the writer waited for Kafka."""


class Record(NamedTuple):
    """A record to write, to a partition that the source chose."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None


class Position(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far a source has been written, as JSON under the source's key in ``rheos.replay``.

    ``next`` holds the *next* number to write, under names of the source's choice; ``counts`` what
    became of those before it, over all runs; ``run`` the run that wrote this.
    """

    run: str = ""
    next: dict[str, int] = {}
    counts: dict[str, int] = {}
    order: str = ""


_FORBIDDEN = frozenset(
    (
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError.INVALID_TRANSACTION_TIMEOUT,
    )
)

_encode_position = msgspec.json.Encoder().encode
_decode_position = msgspec.json.Decoder(Position).decode


def read_position(settings: Settings, source: str) -> Position:
    """The last committed position of a source. Blocks; raises as ``read_committed`` does."""
    key, value = source.encode(), None
    for message in read_committed(settings.kafka.bootstrap, Topics(settings).replay, 0):
        if message.key() == key:
            value = message.value()
    return _decode_position(value) if value else Position()


class SourceWriter:
    """Writes a source to Kafka exactly once, over any number of runs that end in any way.

    1. *Open*: a producer whose ``transactional.id`` names the source; ``init_transactions`` fences
       an earlier run and settles its last transaction. Then the position is read, and claimed:
       written again with this run's name.
    2. *Commit*: records and the position after them, in one transaction.
    3. *Whatever fails* in a transaction: drop the producer, open again, and let the position say
       whether the transaction was committed. A run that was fenced first waits until a transaction
       of its own would have timed out, then looks: if the position is not what it left, another run
       has the source, and this one ends.

    For one thread. ``stop`` ends a wait for Kafka, with Stopped; otherwise it waits without limit
    and tells ``notice`` why.
    """

    def __init__(
        self,
        settings: Settings,
        source: str,
        *,
        stop: threading.Event,
        notice: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._source = source
        self._stop = stop
        self._notice = notice
        self._topic = Topics(settings).replay
        self._producer: Producer | None = None
        self.run = secrets.token_hex(8)
        self.position = Position()

    def open(self) -> Position:
        """Takes the source over and returns where it stands. Raises SourceError or Stopped."""
        self.position = self._reopen()
        self.commit([], msgspec.structs.replace(self.position, run=self.run))
        return self.position

    def partitions(self, topic: str) -> int:
        """How many partitions a topic has; 0: it does not exist. Raises SourceError or Stopped."""
        assert self._producer is not None, "open first"
        waits = 0
        while True:
            try:
                found = self._producer.list_topics(topic, timeout=KAFKA_TIMEOUT_S).topics[topic]
                return len(found.partitions)
            except KafkaException as error:
                if not _may_pass(error):
                    raise SourceError(f"{topic}: {_text(error)}") from None
                self._wait(waits, error)
                waits += 1

    def commit(self, records: Sequence[Record], position: Position) -> None:
        """Writes ``records`` and ``position``, both or nothing. Raises SourceError or Stopped."""
        for attempt in range(ATTEMPTS):
            try:
                self._transact(records, position)
            except KafkaException as error:
                self._drop()
                if attempt == ATTEMPTS - 1:
                    raise SourceError(f"{self._source}: {_text(error)}") from None
                if error.args[0].fatal():
                    self._let_others_go_first(position)
                elif attempt:
                    self._wait(attempt, error)
            else:
                self.position = position
                return
            found = self._reopen()
            if found == position:
                self.position = position
                return
            self._still_mine(found)

    def close(self) -> None:
        """Lets go of Kafka. A transaction that is open is left to its time-out."""
        self._drop()

    def _transact(self, records: Sequence[Record], position: Position) -> None:
        assert self._producer is not None, "open first"
        producer = self._producer
        producer.begin_transaction()
        produce = producer.produce
        for topic, partition, key, value in records:
            produce(topic, value, key, partition)
        produce(self._topic, _encode_position(position), self._source.encode(), 0)
        producer.commit_transaction(KAFKA_TIMEOUT_S)

    def _reopen(self) -> Position:
        waits = 0
        while True:
            try:
                self._producer = self._new_producer()
                self._init_transactions(self._producer)
                return read_position(self._settings, self._source)
            except (KafkaException, CommittedLogError) as error:
                self._drop()
                if isinstance(error, KafkaException) and not _may_pass(error):
                    raise SourceError(f"{self._source}: {_text(error)}") from None
                self._wait(waits, error)
                waits += 1

    def _init_transactions(self, producer: Producer) -> None:
        give_up_s = time.monotonic() + KAFKA_TIMEOUT_S
        while True:
            try:
                producer.init_transactions(LOOK_UP_S)
                return
            except KafkaException as error:  # called again, it goes on where it was
                if error.args[0].code() != KafkaError._TIMED_OUT or time.monotonic() > give_up_s:
                    raise
            if self._stop.is_set():
                raise Stopped

    def _new_producer(self) -> Producer:
        stream = self._settings.stream
        return Producer(
            {
                "bootstrap.servers": self._settings.kafka.bootstrap,
                "transactional.id": f"{self._settings.kafka.prefix}.replay.{self._source}",
                "transaction.timeout.ms": stream.transaction_timeout_s * 1000,
                "message.timeout.ms": stream.transaction_timeout_s * 1000,
                "linger.ms": 5,
                "compression.type": "lz4",
                "log_level": 2,
            }
        )

    def _drop(self) -> None:
        if self._producer is not None:
            self._producer.purge()
        self._producer = None

    def _let_others_go_first(self, position: Position) -> None:
        """After a fence: waits, and raises unless the source is still where this run left it."""
        timeout_s = self._settings.stream.transaction_timeout_s
        self._notice(f"fenced: another run, or a pause; looking again in {timeout_s} s")
        if self._stop.wait(timeout_s):
            raise Stopped
        try:
            found = read_position(self._settings, self._source)
        except (KafkaException, CommittedLogError):
            return  # Kafka is away: opening waits for it and looks again
        if found != position:
            self._still_mine(found)

    def _still_mine(self, found: Position) -> None:
        if found != self.position:
            raise SourceError(
                f"another run has taken over {self._source} and stands at {found.next};"
                " one at a time is enough, start this one again when that one has ended"
            )

    def _wait(self, waits: int, error: Exception) -> None:
        self._notice(f"waiting for Kafka at {self._settings.kafka.bootstrap}: {_text(error)}")
        if self._stop.wait(min(LONGEST_WAIT_S, FIRST_WAIT_S * 2**waits)):
            raise Stopped


def _may_pass(error: KafkaException) -> bool:
    """Whether opening may succeed later. What Kafka forbids, it will forbid again."""
    return error.args[0].code() not in _FORBIDDEN


def _text(error: Exception) -> str:
    return str(error.args[0].str()) if isinstance(error, KafkaException) else str(error)

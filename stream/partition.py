"""One partition, one writer, one transaction: how every event counts exactly once.

The unit is a *partition*: one partition of an input topic, the partition of the state topic with
the same number, and one transactional producer. The state topic always equals the fold of the
input log up to the checkpoint that it holds, whatever dies in between:

1. **Open.**
   1.1 A new producer under this partition's transactional id fences every earlier owner, also one
       that sleeps, and settles its last transaction.
   1.2 Only then ask where the state partition ends, *read uncommitted*: a reader of committed
       records is told an earlier end while any transaction is open.
   1.3 Read it committed, from where the local store stands until the *position* is there. The last
       records may be markers, so the last record read says little. A store of a state topic with
       another id, or that stands above this one's end, is forgotten first and read anew.
   1.4 Read the checkpoint: the next input offset, and the input log that it counts in. Another
       log, or one that was cut above or below, stops the partition: it would lose events silently.
2. **Apply.** Fold the records of all queued chunks from the checkpoint on, each offset once.
   Nothing leaves the process. What fails twice is halved, down to one record, which becomes a dead
   letter. A chunk that does not join on to the one before stops this: the log is read again.
3. **Commit.** One transaction holds
   3.1 the changed states, each once, 3.2 outputs and dead letters, 3.3 the new checkpoint.
4. **Keep.** Then the local store takes the same, with the state topic's new position.
5. **Whatever fails** in a transaction: ``drop`` producer and changes; never abort, never reuse. The
   owner (``stream/runner.py``) opens a new Partition, whose checkpoint says what the lost one did.

Markers, aborted records and compaction leave holes in both logs, so a jump of offsets is no loss.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from rheos import metrics
from rheos.settings import Settings
from rheos.state import (
    CHECKPOINT_KEY,
    Checkpoint,
    DeadLetter,
    decode_checkpoint,
    encode_dead_letter,
    encode_state,
)
from rheos.topics import Topics
from stream.agent import Agent, Changes
from stream.chunk import Chunk
from stream.cluster import ANSWER_WITHIN_S, CLIENT, Cluster, Range, TopicIdentity
from stream.record import Record
from stream.store import Store

MAX_RECORD_BYTES = 1_000_000
"""What we write is at most this large; Kafka's own default limit is 1,048,588 with overhead."""

_CHECKPOINT = CHECKPOINT_KEY.decode()
_STEP_S = 0.5  # how often a step that waits for the broker looks whether the worker stops
_READ_STEP_S = 0.05  # a read waits that long for 5,000 records, however few are there
_BETWEEN_TRIES_S = 0.02
_CACHED_STATES = 4096
_FENCED = {
    KafkaError._FENCED,
    KafkaError.INVALID_PRODUCER_EPOCH,
    KafkaError.PRODUCER_FENCED,
}

_log = logging.getLogger(__name__)


class InputLost(Exception):
    """The input log lacks what the state has yet to fold. The text says what and what to do."""


class ChunkMissing(Exception):
    """A chunk was not handed on: the log must be read again from the checkpoint."""


class Abandoned(Exception):
    """The worker stops or lost the partition; what is in hand is left as it is."""


def is_fenced(error: KafkaException) -> bool:
    """Whether another producer with the same transactional id was begun (or ours timed out)."""
    return error.args[0].code() in _FENCED


class Partition:
    """The single writer of one partition. For one thread; all methods may block on the broker.

    They raise KafkaException, after which only ``drop`` may be called, and Abandoned soon after
    ``stopping`` is set.
    """

    def __init__(
        self,
        settings: Settings,
        agent: Agent,
        number: int,
        store: Store,
        cluster: Cluster,
        stopping: threading.Event,
    ) -> None:
        self.place = f"{agent.input_topic}[{number}]"
        self.next_offset = 0
        self._settings = settings
        self._dead_letters_topic = Topics(settings).dead_letters
        self._agent = agent
        self._number = number
        self._store = store
        self._cluster = cluster
        self._stopping = stopping
        self._fold = agent.new_fold(number)
        self._states = _StateCache(store, agent.decode_state)
        self._batch = _Batch()
        self._identity = TopicIdentity("", 0)
        self._producer: Producer | None = None
        self._written = _Written()

    # 1. Open

    def open(self) -> None:
        """Make this the only writer and bring the local store up to date.

        Afterwards ``next_offset`` is where the input is to be read from. Raises InputLost.
        """
        started = time.monotonic()
        self._fence_earlier_owners()  # 1.1
        state_id = self._cluster.identity(self._agent.state_topic).topic_id
        state = self._cluster.range(self._agent.state_topic, self._number)  # 1.2
        if self._store.topic_id != state_id or self._store.position > state.end:
            self._store.forget(state_id)
        self._catch_up(state)  # 1.3
        self.next_offset = self._find_place()  # 1.4
        metrics.RESTORE_SECONDS.labels(self._agent.name).observe(time.monotonic() - started)

    def _fence_earlier_owners(self) -> None:
        kafka, stream = self._settings.kafka, self._settings.stream
        name = f"{kafka.prefix}-{self._agent.name}-{self._agent.input_topic}-{self._number}"
        self._producer = Producer(
            {
                "bootstrap.servers": kafka.bootstrap,
                "transactional.id": name,
                "transaction.timeout.ms": stream.transaction_timeout_s * 1000,
                "linger.ms": 5,
                "queue.buffering.max.messages": 10_000_000,  # batch_records bounds it
                "message.max.bytes": 2 * MAX_RECORD_BYTES,
                "partitioner": "murmur2_random",
                **CLIENT,
            }
        )
        # Until a broker is connected, init_transactions sleeps half a second between its tries.
        self._producer.list_topics(self._agent.state_topic, timeout=ANSWER_WITHIN_S)
        self._until_done(self._producer.init_transactions)

    def _catch_up(self, state: Range) -> None:
        if self._store.position >= state.end:
            return
        consumer = Consumer(
            {
                "bootstrap.servers": self._settings.kafka.bootstrap,
                "group.id": f"{self._settings.kafka.prefix}-restore",  # never joined
                "enable.auto.commit": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 20,
                **CLIENT,
            }
        )
        try:
            begin = max(self._store.position, state.begin)
            consumer.assign([TopicPartition(self._agent.state_topic, self._number, begin)])
            position = begin
            while position < state.end:
                if self._stopping.is_set():
                    raise Abandoned
                position = self._keep_read(consumer.consume(5000, _READ_STEP_S), position)
        finally:
            consumer.close()

    def _keep_read(self, messages: list[Message], position: int) -> int:
        changes: dict[str, bytes | None] = {}
        for message in messages:
            error = message.error()
            if error is None:
                changes[message.key().decode()] = message.value()
                position = message.offset() + 1
            elif error.code() == KafkaError._PARTITION_EOF:
                position = message.offset()  # past the markers that follow the last record
            elif not error.retriable():
                raise KafkaException(error)
        if messages:
            self._store.put(changes, position)
        return position

    def _find_place(self) -> int:
        topic = self._agent.input_topic
        self._identity = self._cluster.identity(topic)
        log = self._cluster.range(topic, self._number)
        value = self._store.get(_CHECKPOINT)
        if value is None:
            return log.begin  # nothing of this log was ever folded
        checkpoint = decode_checkpoint(value)
        loss = _loss(checkpoint, self._identity, log)
        if loss is None:
            return checkpoint.next_offset
        if not self._settings.stream.accept_loss:
            raise InputLost(
                f"{self.place}: {loss.text} Agent {self._agent.name} stopped this partition; its"
                f" state stands at offset {checkpoint.next_offset}. To go on from"
                f" {loss.go_on_from}, set stream.accept_loss = true"
                " (RHEOS_STREAM_ACCEPT_LOSS=true) for one start of the worker."
            )
        _log.warning("%s: %s Accepted; going on from %d.", self.place, *loss)
        return loss.go_on_from

    # 2. Apply

    def apply(self, chunks: Sequence[Chunk]) -> None:
        """Fold the records, in log order, that lie at or above ``next_offset``, each once.

        Does not touch the broker. Raises ChunkMissing, which leaves everything as it was.
        """
        place = self.next_offset
        records: list[Record] = []
        for chunk in chunks:
            if chunk.begin > place:
                raise ChunkMissing(f"{self.place}: nothing came from {place} to {chunk.begin}")
            part = chunk.records
            if part and part[0].offset < place:  # given before, and committed or in this batch
                part = [record for record in part if record.offset >= place]
            records.extend(part)
            place = max(place, chunk.next_offset)
        self._batch.records += len(records)
        self._batch.next_offset = place
        if records:
            self._fold_or_halve(records)

    def _fold_or_halve(self, records: Sequence[Record]) -> None:
        try:
            changes = self._folded(records)
        except Exception:  # noqa: BLE001 - whatever it is, it is tried again and then told
            try:
                changes = self._folded(records)
            except Exception as error:  # noqa: BLE001
                if len(records) > 1:
                    middle = len(records) // 2
                    self._fold_or_halve(records[:middle])
                    self._fold_or_halve(records[middle:])
                    return
                _log.exception("%s@%d: the fold failed", self.place, records[0].offset)
                text = f"{type(error).__name__}: {error}"[:2000]
                letter = self._agent.dead_letter(self._number, records[0], "failed", text)
                changes = _Encoded(Changes({}, (), [letter]))
        self._batch.add(changes)

    def _folded(self, records: Sequence[Record]) -> "_Encoded":
        changes = _Encoded(self._fold(records, self._state_of))
        changes.check()
        return changes

    def _state_of(self, key: str) -> Any:
        decoded = self._batch.decoded
        return decoded[key] if key in decoded else self._states.get(key)

    # 3. Commit, 4. Keep

    def commit(self) -> None:
        """Write what was applied since the last commit, wholly or not at all, and keep it."""
        batch = self._batch
        if batch.next_offset <= self.next_offset:
            return  # all of it lay below the checkpoint
        started = time.monotonic()
        self._send(batch)  # 3
        self._finish()
        self._keep(batch)  # 4
        self._batch = _Batch()
        batch.count(self._agent.name, time.monotonic() - started)

    def _send(self, batch: "_Batch") -> None:
        self._writer.begin_transaction()
        topic, number = self._agent.state_topic, self._number
        for key, value in batch.encoded.items():  # 3.1
            self._produce(topic, number, key.encode(), value)
        for output in batch.outputs:  # 3.2
            self._produce(*output)
        for letter in batch.dead_letters:
            self._produce(self._dead_letters_topic, 0, letter.key, encode_dead_letter(letter))
        checkpoint = Checkpoint(batch.next_offset, *self._identity)
        self._produce(  # 3.3
            topic, number, CHECKPOINT_KEY, encode_state(checkpoint), on_delivery=self._written.note
        )

    def _produce(
        self, topic: str, partition: int, key: bytes | None, value: bytes | None, **options: Any
    ) -> None:
        self._writer.produce(topic, value, key, partition, **options)

    def _finish(self) -> None:
        # Not flush: it raises a fatal error (fencing) from within whatever callback it calls.
        self._until_done(self._writer.commit_transaction)
        self._writer.poll(0)  # for _Written

    def _keep(self, batch: "_Batch") -> None:
        checkpoint = Checkpoint(batch.next_offset, *self._identity)
        changes = {**batch.encoded, _CHECKPOINT: encode_state(checkpoint)}
        self._store.put(changes, self._written.to)
        self._states.put(batch.decoded)
        self.next_offset = batch.next_offset

    # 5. Whatever fails

    def drop(self) -> None:
        """Let go of the producer and of everything not committed. Does not wait for the broker."""
        if self._producer is not None:
            self._producer.purge(blocking=False)
            self._producer = None
        self._batch = _Batch()

    @property
    def _writer(self) -> Producer:
        if self._producer is None:
            raise RuntimeError(f"{self.place} is not open")
        return self._producer

    def _until_done(self, step: Callable[[float], None]) -> None:
        """Repeats a step of the transaction protocol while the answer is "not yet"."""
        while True:
            try:
                step(_STEP_S)
                return
            except KafkaException as error:
                if not error.args[0].retriable():
                    raise
                if self._stopping.wait(_BETWEEN_TRIES_S):
                    raise Abandoned from None


class _Written:
    """Where a producer wrote the last checkpoint; ``to`` is the offset after it.

    Apart from the partition: of what was purged and is never polled, confluent-kafka keeps the
    callback for good, and all that the callback holds.
    """

    def __init__(self) -> None:
        self.to = 0

    def note(self, error: KafkaError | None, message: Message) -> None:
        if error is None:  # the commit tells of errors
            self.to = message.offset() + 1


class _Encoded:
    """A fold's changes, ready to send."""

    def __init__(self, changes: Changes) -> None:
        self.changes = changes
        self.encoded: dict[str, bytes | None] = {
            key: None if state is None else encode_state(state)
            for key, state in changes.states.items()
        }

    def check(self) -> None:
        """Raises ValueError for a record that the broker would refuse, again and again."""
        for key, value in self.encoded.items():
            if value is not None and len(value) > MAX_RECORD_BYTES:
                raise ValueError(f"the state of {key!r} has {len(value)} bytes")
        for output in self.changes.outputs:
            if len(output.value) > MAX_RECORD_BYTES:
                raise ValueError(f"a record for {output.topic} has {len(output.value)} bytes")


class _Batch:
    """What was applied and not yet committed."""

    def __init__(self) -> None:
        self.decoded: dict[str, Any] = {}
        self.encoded: dict[str, bytes | None] = {}
        self.outputs: list[Any] = []
        self.dead_letters: list[DeadLetter] = []
        self.accepted = self.duplicates = self.records = 0
        self.next_offset = 0

    def add(self, folded: _Encoded) -> None:
        changes = folded.changes
        self.decoded.update(changes.states)
        self.encoded.update(folded.encoded)
        self.outputs.extend(changes.outputs)
        self.dead_letters.extend(changes.dead_letters)
        self.accepted += changes.accepted
        self.duplicates += changes.duplicates

    def count(self, agent: str, commit_seconds: float) -> None:
        """Moves the metrics, once the batch is committed."""
        metrics.COMMIT_SECONDS.labels(agent).observe(commit_seconds)
        metrics.BATCH_RECORDS.labels(agent).observe(self.records)
        metrics.EVENTS_ACCEPTED.inc(self.accepted)
        metrics.EVENTS_DUPLICATE.inc(self.duplicates)
        for letter in self.dead_letters:
            metrics.EVENTS_REJECTED.labels(letter.reason).inc()


class _StateCache:
    """Decoded states over a store: decoding is a third of a fold, and busy keys come again.

    Two generations of at most ``_CACHED_STATES`` each: when the young one is full it becomes the
    old one, so a key that is not used for a while goes. Costs one dict look-up.
    """

    def __init__(self, store: Store, decode: Callable[[bytes], Any]) -> None:
        self._store = store
        self._decode = decode
        self._young: dict[str, Any] = {}
        self._old: dict[str, Any] = {}

    def get(self, key: str) -> Any:
        state = self._young.get(key)
        if state is None:
            state = self._old.get(key)
            if state is None:
                value = self._store.get(key)
                if value is None:
                    return None
                state = self._decode(value)
            self._put(key, state)
        return state

    def put(self, states: dict[str, Any]) -> None:
        for key, state in states.items():
            if state is None:
                self._young.pop(key, None)
                self._old.pop(key, None)
            else:
                self._put(key, state)

    def _put(self, key: str, state: Any) -> None:
        if len(self._young) >= _CACHED_STATES:
            self._old, self._young = self._young, {}
        self._young[key] = state


class _Loss(NamedTuple):
    text: str
    go_on_from: int


def _loss(checkpoint: Checkpoint, now: TopicIdentity, log: Range) -> _Loss | None:
    """What of the input is gone that the checkpoint counted on, or None."""
    place = checkpoint.next_offset
    if checkpoint.topic_id != now.topic_id:
        return _Loss(
            "the topic was deleted and created again (id"
            f" {checkpoint.topic_id} then, {now.topic_id} now). What the old log held from offset"
            f" {place} on is lost.",
            log.begin,
        )
    if log.begin > place:
        return _Loss(
            f"the log now begins at offset {log.begin}. What it held from {place} to"
            f" {log.begin - 1}, at most {log.begin - place} records, was deleted before it was"
            " folded and is lost.",
            log.begin,
        )
    if log.end < place:
        return _Loss(
            f"the log now ends at offset {log.end}, below what was folded: its end was cut off, and"
            " what is written there again would be taken for old.",
            log.end,
        )
    if checkpoint.partitions != now.partitions:
        return _Loss(
            f"the topic had {checkpoint.partitions} partitions and has {now.partitions}: keys moved"
            " to other partitions, where their states are not found.",
            place,
        )
    return None

"""What the topics say now: user-state, item-state, items and users, read by one thread."""

import logging
import threading
import time
from collections.abc import Callable

import msgspec
import numpy as np
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from indexer.candidates import NextLists, Trend
from indexer.item_numbers import ItemNumbers
from indexer.live_catalogue import LiveCatalogue
from indexer.live_users import NOBODY, LiveUser, LiveUsers
from rheos import metrics
from rheos.bootstrap import is_reachable
from rheos.catalogue import InvalidRecordError
from rheos.generation import Generation
from rheos.settings import Settings
from rheos.state import CHECKPOINT_KEY, Float32s
from rheos.topics import Topics

log = logging.getLogger(__name__)

RETRY_S = 1.0
CLOSE_S = 3.0  # a thread that waits for an absent Kafka is left behind; it is a daemon
POLL_MS = 200
LAG_EVERY_S = 1.0


class _ItemHead(msgspec.Struct, array_like=True):
    """The first fields of an ItemState; the neighbours are decoded when a query needs them."""

    interactions: int
    popularity_epochs: bytes
    popularity: bytes


_decode_item_head = msgspec.msgpack.Decoder(_ItemHead).decode


class LiveView:
    """The latest value of every key of the four topics, read committed from the beginning.

    Ready once it has read to the ends that it saw at its start; these are asked read-uncommitted,
    since a read-committed end stops before another producer's open transaction. ``on_items`` is
    told the numbers of items whose state or record changed, from the reading thread.
    """

    def __init__(
        self, settings: Settings, on_items: Callable[[list[int]], None] = lambda numbers: None
    ) -> None:
        self._settings = settings
        self._topics = Topics(settings)
        self._on_items = on_items
        self.numbers = ItemNumbers()
        self.next_lists = NextLists(settings, self.numbers)
        self.trend = Trend(settings)
        self.users = LiveUsers()
        self.catalogue = LiveCatalogue(self.numbers)
        self._take = {
            self._topics.user_state: self._take_user_state,
            self._topics.item_state: self._take_item_state,
            self._topics.items: self._take_item,
            self._topics.users: self._take_user,
        }
        self._ends: dict[TopicPartition, int] | None = None
        self._positions: dict[TopicPartition, int] = {}
        self._lag_messages: dict[str, int] = {}
        self._changed_items: list[int] = []
        self._ready = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="live-view", daemon=True)

    def start(self) -> None:
        """Starts reading. The topics must exist."""
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(CLOSE_S)

    @property
    def ready(self) -> bool:
        return self._ready.is_set()

    def wait_ready(self, timeout_s: float) -> bool:
        return self._ready.wait(timeout_s)

    def not_ready(self) -> str | None:
        """Why there is no answer yet, or None."""
        if self.ready:
            return None
        if self._ends is None:
            return f"waiting for Kafka at {self._settings.kafka.bootstrap}"
        left = sum(
            max(0, end - self._positions.get(partition, 0)) for partition, end in self._ends.items()
        )
        return f"reading the topics: {left} messages to go"

    def unhealthy(self) -> str | None:
        """Why the view can no longer follow, or None."""
        if self._thread.ident is not None and not self._thread.is_alive():
            return "the thread that reads the topics has ended"
        return None

    def lag_messages(self) -> dict[str, int]:
        """Positions not yet read, by topic, as of about a second ago."""
        return dict(self._lag_messages)

    def now_ms(self) -> int:
        """Now by the setting ``clock``: wall time, or the newest accepted event time."""
        if self._settings.clock == "stream" and self.users.newest_event_ms:
            return self.users.newest_event_ms
        return int(time.time() * 1000)

    def vector(
        self, user_id: str, user: LiveUser | None, generation: Generation | None
    ) -> Float32s | None:
        """A user's vector (dimensions,) in ``generation``, or None where nothing is known of her.

        ``user`` is her state, if there is one: before her first event her attributes speak alone.
        """
        if generation is None:
            return None
        attributes = self.catalogue.user(user_id) if generation.encoder.reads_attributes else None
        if user is not None:
            return user.vector(generation, attributes)
        if attributes is None:
            return None
        vector: Float32s = generation.encoder.encode([NOBODY], [attributes])[0]
        return vector

    def interactions(self, item_id: str) -> int:
        """How often an item was taken."""
        number = self.numbers.get(item_id)
        if number is None:
            return 0
        return int(self.next_lists.interactions(np.array([number]))[0])

    def take(self, topic: str, key: bytes | None, value: bytes | None, place: str) -> None:
        """Takes one record of one of the four topics; ``place`` names it in the log."""
        if key is None or key == CHECKPOINT_KEY:
            return
        try:
            self._take[topic](key.decode(), value)
        except (msgspec.DecodeError, InvalidRecordError, UnicodeDecodeError) as error:
            # The streams' own topics hold no such record; the catalogue's are anybody's.
            log.warning("%s is not used: %s", place, error)

    def tell_changed(self) -> None:
        """Tells ``on_items`` what changed since the last time."""
        if self._changed_items:
            changed, self._changed_items = self._changed_items, []
            self._on_items(changed)

    def _take_user_state(self, user_id: str, value: bytes | None) -> None:
        if value is None:
            self.users.remove(user_id)
            return
        append_time_ms = self.users.put(user_id, value)
        if self.ready:  # what was read before was fresh in another process
            metrics.FRESHNESS_SECONDS.observe(max(0.0, time.time() - append_time_ms / 1000))

    def _take_item_state(self, item_id: str, value: bytes | None) -> None:
        number = self.numbers.add(item_id)
        if value is None:
            self.next_lists.remove(number)
            self.trend.remove(number)
            return
        head = _decode_item_head(value)
        self.next_lists.put(number, value, head.interactions)
        if head.popularity:
            self.trend.put(number, head.popularity_epochs, head.popularity)
        self._changed_items.append(number)

    def _take_item(self, item_id: str, value: bytes | None) -> None:
        if value is None:
            self.catalogue.remove_item(item_id)
        else:
            self.catalogue.put_item(item_id, value)
            self._changed_items.append(self.numbers.add(item_id))

    def _take_user(self, user_id: str, value: bytes | None) -> None:
        if value is None:
            self.catalogue.remove_user(user_id)
        else:
            self.catalogue.put_user(user_id, value)

    def _run(self) -> None:
        while not self._stop.is_set():
            if not is_reachable(self._settings.kafka.bootstrap):
                self._stop.wait(RETRY_S)
                continue
            try:
                self._follow()
            except KafkaError as error:
                log.warning("reading the topics: %r; again in %g s", error, RETRY_S)
                self._stop.wait(RETRY_S)

    def _consumer(self, isolation_level: str) -> KafkaConsumer:
        return KafkaConsumer(
            bootstrap_servers=self._settings.kafka.bootstrap.split(","),
            group_id=None,
            enable_auto_commit=False,
            isolation_level=isolation_level,
            auto_offset_reset="earliest",
            allow_auto_create_topics=False,
            max_poll_records=500,
            reconnect_backoff_max_ms=1000,
        )

    def _follow(self) -> None:
        """Reads until stopped, going on from the positions reached so far."""
        if self._ends is None:
            self._ends = self._ends_now()
        consumer = self._consumer("read_committed")
        try:
            consumer.assign(list(self._ends))
            for partition in self._ends:
                if partition in self._positions:
                    consumer.seek(partition, self._positions[partition])
                else:
                    consumer.seek_to_beginning(partition)
            lag_due = 0.0
            while not self._stop.is_set():
                for partition, records in consumer.poll(timeout_ms=POLL_MS).items():
                    for record in records:
                        self.take(
                            partition.topic,
                            record.key,
                            record.value,
                            f"{partition.topic}[{partition.partition}]@{record.offset}",
                        )
                    # At once: after a KafkaError reading goes on from here, and a state that was
                    # answered from must not give way to an older one.
                    self._positions[partition] = records[-1].offset + 1
                self.tell_changed()
                if not self.ready or time.monotonic() >= lag_due:
                    self._positions = {
                        partition: consumer.position(partition) for partition in self._ends
                    }
                    self._measure(consumer)
                    lag_due = time.monotonic() + LAG_EVERY_S
        finally:
            consumer.close()

    def _ends_now(self) -> dict[TopicPartition, int]:
        consumer = self._consumer("read_uncommitted")
        try:
            partitions: list[TopicPartition] = []
            for topic in self._take:
                found = consumer.partitions_for_topic(topic)
                if not found:
                    raise KafkaError(f"topic {topic} does not exist")
                partitions += [TopicPartition(topic, number) for number in sorted(found)]
            return dict(consumer.end_offsets(partitions))
        finally:
            consumer.close()

    def _measure(self, consumer: KafkaConsumer) -> None:
        lag: dict[str, int] = dict.fromkeys(self._take, 0)
        for partition, position in self._positions.items():
            highwater = consumer.highwater(partition)
            if highwater is not None:
                lag[partition.topic] += max(0, highwater - position)
        self._lag_messages = lag
        for topic, messages in lag.items():
            metrics.VIEW_LAG_MESSAGES.labels(topic).set(messages)
        metrics.VIEW_USERS.set(len(self.users))
        metrics.VIEW_ITEMS.set(len(self.next_lists))
        if not self.ready and self._ends is not None:
            reached = all(self._positions[at] >= end for at, end in self._ends.items())
            if reached:
                # Vectors derived from neighbours may have been derived before these were read.
                self._on_items(list(range(len(self.numbers))))
                self._ready.set()
                log.info("the live view is ready: %d users", len(self.users))

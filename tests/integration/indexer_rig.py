"""A live indexer on a real Kafka, fed with records as the stream and catalogues write them."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
from kafka import KafkaProducer

from indexer.service import Service
from indexer.worker import Server
from rheos import topics
from rheos.announcements import SERVING, Announcement, announce
from rheos.catalogue import Item, encode_record
from rheos.ids import partition_of
from rheos.settings import Settings, from_tree
from rheos.snapshot_store import LocalStore
from rheos.state import CHECKPOINT_KEY, ItemState, UserState, encode_state


def settings_for(bootstrap: str, prefix: str, data_dir: Path, **indexer: object) -> Settings:
    return from_tree(
        {
            "data_dir": str(data_dir),
            "kafka": {
                "bootstrap": bootstrap,
                "prefix": prefix,
                "events_partitions": 2,
                "items_partitions": 2,
            },
            "indexer": {"port": 0, **indexer},
        }
    )


class Feed:
    """Writes what the stream, the catalogue and the trainer would."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.topics = topics.Topics(settings)
        assert topics.ensure(settings) == []
        self.store = LocalStore(settings.store_dir)
        self._producer = KafkaProducer(
            bootstrap_servers=settings.kafka.bootstrap.split(","),
            acks="all",
            reconnect_backoff_max_ms=1000,
        )
        self._announced = 0

    def user(self, user_id: str, state: UserState | None) -> None:
        value = None if state is None else encode_state(state)
        self._put(self.topics.user_state, user_id, value, self.settings.kafka.events_partitions)

    def item_state(self, item_id: str, state: ItemState | None) -> None:
        value = None if state is None else encode_state(state)
        self._put(self.topics.item_state, item_id, value, self.settings.kafka.items_partitions)

    def item(self, item: Item) -> None:
        self._put(
            self.topics.items,
            item.item_id,
            encode_record(item),
            self.settings.kafka.items_partitions,
        )

    def raw(self, topic: str, key: bytes | None, value: bytes | None) -> None:
        self._producer.send(topic, key=key, value=value, partition=0)

    def checkpoint(self) -> None:
        self.raw(self.topics.user_state, CHECKPOINT_KEY, b"\x93")

    def announce(self, generation: str, predecessor: str = "") -> None:
        self._announced += 1
        announce(
            self.settings,
            Announcement(
                number=self._announced,
                slot=SERVING,
                generation=generation,
                reason="test",
                time_ms=0,
                predecessor=predecessor,
            ),
        )

    def flush(self) -> None:
        self._producer.flush(60)

    def close(self) -> None:
        self._producer.close()

    def _put(self, topic: str, key: str, value: bytes | None, partitions: int) -> None:
        self._producer.send(
            topic, key=key.encode(), value=value, partition=partition_of(key, partitions)
        )


class Indexer:
    """An indexer in a thread of this process: ``client`` asks it, ``service`` is its inside."""

    def __init__(self, settings: Settings) -> None:
        self._server = Server(settings)
        self.service: Service = self._server.app.state.service
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        until(lambda: self._server.started)
        self.url = f"http://127.0.0.1:{self._server.port}"
        self.client = httpx.Client(base_url=self.url, timeout=60, trust_env=False)

    def ready(self) -> "Indexer":
        until(lambda: self.client.get("/readyz").status_code == 200)
        return self

    def close(self) -> None:
        self.client.close()
        self._server.should_exit = True
        self._thread.join(60)
        assert not self._thread.is_alive()


@contextlib.contextmanager
def running(settings: Settings) -> Iterator[Indexer]:
    indexer = Indexer(settings)
    try:
        yield indexer
    finally:
        indexer.close()


def until(condition: Callable[[], bool], timeout_s: float = 60) -> None:
    """Waits for a condition; fails when it does not come true in time, on a busy machine too."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)

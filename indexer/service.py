"""Everything that the API stands on, opened and closed in one place."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import msgspec
from kafka.errors import KafkaError

from indexer.event_writer import EventWriter
from indexer.hot_swap import HotSwap
from indexer.impression_writer import ImpressionWriter
from indexer.live_view import LiveView
from indexer.retrieval import Retrieval
from indexer.serving import Serving
from rheos import topics
from rheos.bootstrap import is_reachable
from rheos.settings import Settings
from rheos.snapshot_store import LocalStore

log = logging.getLogger(__name__)

RETRY_S = 1.0
UNFIT_S = 5.0
"""Unfit topics are looked at again so often: somebody may mend them."""
CLOSE_S = 1.0  # a thread that waits for an absent Kafka is left behind; it is a daemon
WAITING_SEARCHES = 64

T = TypeVar("T")


class Service:
    """The live view, the generation in service, retrieval and the writers."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.started = time.time()
        self.rules = settings.event_rules()
        self.view = LiveView(settings, self._items_changed)
        self.swap = HotSwap(settings, LocalStore(settings.store_dir), self.view)
        self.retrieval = Retrieval(settings, self.view)
        self.writer = EventWriter(settings)
        self.impressions = ImpressionWriter(settings)
        self._pool = ThreadPoolExecutor(WAITING_SEARCHES, thread_name_prefix="query")
        self._unfit = ""
        self._stop = threading.Event()
        self._bring_up = threading.Thread(target=self._start_all, name="bring-up", daemon=True)

    def start(self) -> None:
        """Returns at once; the topics are made and read while the API already answers 503."""
        self._bring_up.start()

    def close(self) -> None:
        """Ends all threads; within about 3 s even when Kafka is away."""
        self._stop.set()
        self._bring_up.join(CLOSE_S)
        parts = [self.view, self.swap, self.writer, self.impressions]
        with ThreadPoolExecutor(len(parts)) as closing:
            list(closing.map(lambda part: part.close(), parts))
        self._pool.shutdown()

    def not_ready(self) -> str | None:
        """Why there are no recommendations yet, or None."""
        if self._unfit:
            return self._unfit
        problem = self.view.not_ready()
        if problem is None and not self.swap.settled.is_set():
            return "the generation is being loaded"
        return problem

    def unhealthy(self) -> str | None:
        """What only a restart can mend, or None."""
        return self.view.unhealthy() or self.swap.unhealthy()

    async def search(self, serving: Serving | None, query: Callable[[], T]) -> T:
        """Runs a query where it belongs: here, or in a thread when its index makes it wait."""
        if serving is not None and serving.index.waits:
            return await asyncio.get_running_loop().run_in_executor(self._pool, query)
        return query()

    def _items_changed(self, numbers: list[int]) -> None:
        self.swap.items_changed(numbers)

    def _start_all(self) -> None:
        # Sources are the stream's: the API does without their topics.
        settings = msgspec.structs.replace(self.settings, sources=[])
        while not self._stop.is_set():
            if not is_reachable(self.settings.kafka.bootstrap):
                log.warning("waiting for Kafka at %s", self.settings.kafka.bootstrap)
                self._stop.wait(RETRY_S)
                continue
            try:
                unfit = "; ".join(topics.ensure(settings))
            except KafkaError as error:
                log.warning("waiting for Kafka: %r", error)
                self._stop.wait(RETRY_S)
                continue
            if unfit and unfit != self._unfit:
                log.error("%s", unfit)
            self._unfit = unfit
            if not unfit:
                break
            self._stop.wait(UNFIT_S)
        if not self._stop.is_set():
            self.impressions.start()
            self.view.start()
            self.swap.start()

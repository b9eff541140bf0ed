"""Hot swap: the next generation is made ready beside the current one, then one reference changes.

1. *Load*: the snapshot is read and verified, the generation built, its index made.
2. *Warm*: searches run, and must find what plain NumPy finds.
3. *Up to date*: items that the generation does not know get their vectors in its delta, and these
   an index where they are many. From before this step on, changes of items reach the next
   generation as they reach the current.
4. *Change*: ``current`` names the next one. Queries took their reference once and finish with it.
5. *Free*: Python's reference count frees the old one when its last query has ended.

What fails in 1-3 is refused: the current generation stays.
"""

import logging
import threading
import time
import weakref
from typing import NamedTuple

from kafka.errors import KafkaError

from indexer.index import BrokenIndexError
from indexer.live_view import LiveView
from indexer.serving import Serving
from rheos import metrics
from rheos.announcements import Announcement, follow, ruling
from rheos.bootstrap import is_reachable
from rheos.generation import Generation
from rheos.settings import Settings
from rheos.snapshot import SnapshotError
from rheos.snapshot_store import SnapshotStore

log = logging.getLogger(__name__)

RETRY_S = 1.0
CLOSE_S = 3.0  # a thread that waits for an absent Kafka is left behind; it is a daemon
SETTLE_EVERY_S = 1.0


class Refused(NamedTuple):
    """A generation that was not put into service, and why."""

    generation: str
    reason: str


class HotSwap:
    """Holds the generation in service. ``current`` is one reference: read it once per query.

    One thread loads and swaps (``start``, or the caller of ``load``); ``items_changed`` may come
    from another.
    """

    def __init__(self, settings: Settings, store: SnapshotStore, view: LiveView) -> None:
        self._settings = settings
        self._store = store
        self._view = view
        self.current: Serving | None = None
        self._next: Serving | None = None
        self.refused: Refused | None = None
        self.swaps = 0
        self.settled = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="generations", daemon=True)
        self._settling = threading.Thread(target=self._settle, name="settling", daemon=True)

    def start(self) -> None:
        """Follows the announcements; ``settled`` is set once the one that ruled is dealt with."""
        self._thread.start()
        self._settling.start()

    def close(self) -> None:
        self._stop.set()
        for thread in (self._settling, self._thread):
            if thread.ident is not None:
                thread.join(CLOSE_S / 2)

    def unhealthy(self) -> str | None:
        """Which thread has ended that must not, or None."""
        if self._thread.ident is not None and not self._thread.is_alive():
            return "the thread that follows the generations has ended"
        if self._settling.ident is not None and not self._settling.is_alive():
            return "the thread that makes indexes of new items has ended"
        return None

    def items_changed(self, numbers: list[int]) -> None:
        """Derives the vectors of changed items that a generation does not know, again."""
        for serving in (self._next, self.current):
            if serving is not None:
                serving.delta.refresh(numbers)

    def load(self, name: str) -> bool:
        """Puts a generation into service; False when it was refused. Blocks while it is made."""
        current = self.current
        if current is not None and current.name == name:
            return True
        began = time.perf_counter()
        try:
            serving = self._prepared(name)
        except (SnapshotError, OSError, MemoryError, RuntimeError) as error:  # FAISS: RuntimeError
            self._next = None
            self.refused = Refused(name, str(error))
            metrics.SWAPS.labels("refused").inc()
            log.error(
                "generation %s is refused: %s; %s stays", name, error, current and current.name
            )
            return False
        self.current, self._next = serving, None  # 4
        self.swaps += 1
        manifest = serving.generation.manifest
        metrics.SWAPS.labels("done").inc()
        metrics.SWAP_SECONDS.observe(time.perf_counter() - began)
        metrics.GENERATION_NUMBER.set(manifest.number)
        metrics.GENERATION_CREATED_SECONDS.set(manifest.created_ms / 1000)
        log.info("generation %s is in service (%d items)", name, manifest.items)
        return True

    def _prepared(self, name: str) -> Serving:
        generation = Generation(self._store.get(name))  # 1
        view = self._view
        serving = Serving(
            generation, view.numbers, view.next_lists, view.catalogue, self._settings.indexer.index
        )
        weakref.finalize(serving, serving.index.close)  # 5, for what only a thread can free
        try:
            serving.index.check(generation.item_vectors)  # 2
            self._next = serving  # 3
            serving.delta.refresh(range(len(view.numbers)))
            serving.delta.settle()
        except BrokenIndexError as error:
            raise SnapshotError(f"snapshot {name}: {error}") from error
        return serving

    def _settle(self) -> None:
        """Items that come while a generation serves, a new catalogue's say, get their index too."""
        while not self._stop.wait(SETTLE_EVERY_S):
            serving = self.current
            try:
                if serving is not None and serving.delta.settle():
                    log.info("%d items are newer than %s", len(serving.delta), serving.name)
            except (MemoryError, RuntimeError) as error:  # FAISS: RuntimeError
                log.error("new items go on being scanned: %s", error)

    def _announced(self, announcement: Announcement) -> None:
        loaded = self.load(announcement.generation)
        if not loaded and self.current is None and announcement.predecessor:
            # Just started: the one that ruled before is better than none.
            self.load(announcement.predecessor)

    def _run(self) -> None:
        while not self._stop.is_set():
            if not is_reachable(self._settings.kafka.bootstrap):
                self._stop.wait(RETRY_S)
                continue
            try:
                if not self.settled.is_set():
                    first = ruling(self._settings)
                    if first is not None:
                        self._announced(first)
                    self.settled.set()
                follow(self._settings, self._announced, self._stop)
            except KafkaError as error:
                log.warning("following the generations: %r; again in %g s", error, RETRY_S)
                self._stop.wait(RETRY_S)

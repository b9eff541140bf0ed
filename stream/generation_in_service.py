"""The generation in service: a thread that follows the announcements and loads snapshots."""

import logging
import threading
import time

from kafka.errors import KafkaError

from rheos import metrics
from rheos.announcements import Announcement, follow
from rheos.bootstrap import is_reachable
from rheos.generation import Generation
from rheos.settings import Settings
from rheos.snapshot import SnapshotError
from rheos.snapshot_store import LocalStore

_AGAIN_AFTER_S = 1.0

_log = logging.getLogger(__name__)


class GenerationInService:
    """``current`` is the ruling generation, verified, or None before the first.

    Reading it is one reference: whoever took it keeps a whole generation for as long as it is
    needed. A snapshot that is absent or broken is refused, and the one in service stays.
    """

    def __init__(self, settings: Settings) -> None:
        self.current: Generation | None = None
        self._settings = settings
        self._store = LocalStore(settings.store_dir)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="generations", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Ends the thread; blocks for a second at most, unless a snapshot is being loaded."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(1.0)

    def unhealthy(self) -> str | None:
        """Why generations are no longer followed, or None."""
        if self._thread.ident is not None and not self._thread.is_alive():
            return "the thread that follows the generations has ended"
        return None

    def _run(self) -> None:
        while not self._stop.is_set():
            if not is_reachable(self._settings.kafka.bootstrap):
                self._stop.wait(_AGAIN_AFTER_S)
                continue
            try:
                follow(self._settings, self._take, self._stop)
            except KafkaError as error:
                _log.warning("cannot read the announcements: %s", error)
                self._stop.wait(_AGAIN_AFTER_S)

    def _take(self, announcement: Announcement) -> None:
        name = announcement.generation
        if self.current is not None and self.current.name == name:
            return
        started = time.monotonic()
        try:
            generation = Generation(self._store.get(name))
        except (SnapshotError, OSError, MemoryError, RuntimeError) as error:
            metrics.SWAPS.labels("refused").inc()
            serving = self.current.name if self.current else "none"
            _log.error("generation %s refused, %s stays in service: %r", name, serving, error)
            return
        self.current = generation
        metrics.SWAPS.labels("done").inc()
        metrics.SWAP_SECONDS.observe(time.monotonic() - started)
        metrics.GENERATION_NUMBER.set(generation.manifest.number)
        metrics.GENERATION_CREATED_SECONDS.set(generation.manifest.created_ms / 1000)
        _log.info("generation %s in service: %s", name, announcement.reason)

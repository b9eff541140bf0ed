"""The trainer worker: archives events all the time, runs a cycle when it is due, and rolls back
what people do not click. Of several workers one does the latter two; the others archive and wait.
"""

import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from typing import IO, Self

import msgspec
from kafka.errors import KafkaError

from rheos import metrics
from rheos.announcements import ruling
from rheos.bootstrap import is_reachable
from rheos.settings import Settings
from rheos.snapshot import Manifest, SnapshotError, number_of, read_manifest
from rheos.snapshot_store import LocalStore
from rheos.supervisor.tether import tethered
from trainer.archive import ArchiveError
from trainer.archiver import Archiver
from trainer.blending import learning as blending
from trainer.cycle import Order, Outcome
from trainer.leadership import Leadership
from trainer.live_clicks import LiveClicks, roll_back_if_fallen
from trainer.models import item_weigher_of_settings, model_of_settings
from trainer.schedule import Schedule, Why

log = logging.getLogger(__name__)

POLL_MS = 250
MEASURE_S = 5.0
FLUSH_S = 10.0
"""Events wait at most so long for their file; a crash before means that they are read again."""
LIVE_S = 30.0
"""Between looks at what was clicked."""
RETRY_S = 2.0
STOP_S = 2.0


def run(settings: Settings) -> int:
    """Runs until SIGTERM or SIGINT, then stops within seconds; returns the exit status.

    Archiving and fitting are separate processes: a fit can crash, be killed for its memory or be
    stopped at any moment, and archiving goes on. Trouble with Kafka or the archive is logged, shown
    by /readyz, and tried again. Anything else ends the process: no thread here could die alone, so
    /healthz says no more than that it lives. Raises SettingsError and OSError (a busy port) at the
    start.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    # kafka-python warns of each slow turn of its event loop, which a busy machine makes common.
    logging.getLogger("kafka").setLevel(logging.ERROR)
    model_of_settings(settings)
    blending.check(settings)
    item_weigher_of_settings(settings)
    stop = threading.Event()

    def on_signal(*_: object) -> None:
        stop.set()
        # A Kafka client may wait half a minute for a broker that is away; nothing depends on an
        # orderly end, and the fitting process dies with this one.
        last_resort = threading.Timer(STOP_S * 2, os._exit, [0])
        last_resort.daemon = True
        last_resort.start()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, on_signal)
    trouble = "starting"
    host, port = settings.trainer.host, settings.trainer.port
    server = metrics.MetricsServer(host, port, lambda: trouble or None)
    try:
        with _Fits(settings) as fits:
            while not stop.is_set():
                if not is_reachable(settings.kafka.bootstrap):
                    trouble = f"waiting for Kafka at {settings.kafka.bootstrap}"
                    log.warning("%s", trouble)
                    stop.wait(RETRY_S)
                    continue
                try:
                    with Archiver(settings) as archiver, Leadership(settings) as leadership:
                        trouble = ""
                        _work(settings, archiver, leadership, fits, stop)
                except (KafkaError, ArchiveError, OSError) as error:
                    trouble = f"archiving stopped: {error or type(error).__name__}"
                    log.error("%s; trying again", trouble)
                    stop.wait(RETRY_S)
    finally:
        server.close()
    return 0


def _work(
    settings: Settings,
    archiver: Archiver,
    leadership: Leadership,
    fits: "_Fits",
    stop: threading.Event,
) -> None:
    """Archives until ``stop``, and leads while it may; what is buffered at the end is committed."""
    flushed = measured = time.monotonic()
    lead: _Lead | None = None
    try:
        while not stop.is_set():
            archiver.poll(POLL_MS)
            now = time.monotonic()
            if now - flushed >= FLUSH_S:
                archiver.flush()
                flushed = now
            if now - measured >= MEASURE_S:
                archiver.measure()
                measured = now
            if leadership.leads():
                if lead is None:
                    log.info("this trainer fits; others of the prefix wait")
                    lead = _Lead(settings, archiver, fits)
                lead.turn(now)
            elif lead is not None:
                log.warning("another trainer fits now; a fit that is running here still ends")
                lead.close()
                lead = None
        archiver.flush()
    finally:
        if lead is not None:
            lead.close()


class _Lead:
    """What only one trainer does: starting fits, and looking at what was clicked. Close it."""

    def __init__(self, settings: Settings, archiver: Archiver, fits: "_Fits") -> None:
        self._settings = settings
        self._archiver = archiver
        self._fits = fits
        self._store = LocalStore(settings.store_dir)
        self._schedule = _schedule(settings, archiver)
        self._clicks = LiveClicks(settings, archiver.archive)
        self._looked = 0.0
        self._serving = ""
        # A look for drift that an earlier lead of this trainer began may still become a cycle.
        self._started = (archiver.records(), time.monotonic())

    def close(self) -> None:
        self._clicks.close()

    def turn(self, now: float) -> None:
        """Does what is due. ``now`` is monotonic."""
        ended = self._fits.ended()
        if ended is not None:
            why, outcome = ended
            if outcome.kind == "promoted":
                self._schedule.promoted()
            if why == "drift" and outcome.kind != "waiting":
                self._schedule.started(*self._started)  # the look became a cycle
        if now - self._looked >= LIVE_S:
            self._look(now)
        due = self._schedule.due(self._archiver.records(), now)
        if due is not None and not self._fits.running:
            self._archiver.flush()
            self._started = (self._archiver.records(), now)
            (self._schedule.looked if due == "drift" else self._schedule.started)(*self._started)
            self._fits.start(self._archiver.archive.topic_id, due)

    def _look(self, now: float) -> None:
        """Reads on what was clicked; once that is up to date, rolls back if it must."""
        try:
            if not self._clicks.look(self._archiver.complete_ms):
                return  # and goes on at once
        except ArchiveError as error:
            # A file that is damaged stops no archiving: what Kafka deletes is lost for good.
            log.error("what was clicked cannot be read: %s", error)
        else:
            serving = roll_back_if_fallen(self._settings, self._store, self._clicks)
            if serving and serving != self._serving:
                _measure(self._settings, serving)
            self._serving = serving
        self._looked = now


def _schedule(settings: Settings, archiver: Archiver) -> Schedule:
    """A schedule that goes on from the serving generation, if there is one that can be read."""
    schedule = Schedule(settings.trainer)
    announced = ruling(settings)
    if announced is not None:
        try:
            manifest = _manifest(settings, announced.generation)
        except SnapshotError as error:
            log.error("the serving generation cannot be read: %s", error)
            return schedule
        schedule.promoted()
        same = manifest.topic_id == archiver.archive.topic_id
        records = archiver.records_until(manifest.window) if same else 0
        schedule.started(records, time.monotonic() - (time.time() - manifest.created_ms / 1000))
        _measure(settings, announced.generation)
    return schedule


def _measure(settings: Settings, generation: str) -> None:
    """Sets the gauges of the generation that serves."""
    metrics.GENERATION_NUMBER.set(number_of(generation))
    try:
        manifest = _manifest(settings, generation)
    except SnapshotError:  # `_schedule`, the cycle and every reader say so
        return
    metrics.GENERATION_CREATED_SECONDS.set(manifest.created_ms / 1000)


def _manifest(settings: Settings, generation: str) -> Manifest:
    """Without any tensors, since archiving waits for this. Raises SnapshotError."""
    return read_manifest(LocalStore(settings.store_dir).path(generation))


class _Fits:
    """The child process that runs a cycle; one at a time. Ends it on leaving the ``with``."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._child: subprocess.Popen[bytes] | None = None
        self._answer: IO[bytes] | None = None
        self._began = 0.0
        self._why: Why = "time"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._child is not None:
            # A cycle may end anywhere: snapshots and announcements are all or nothing.
            self._child.terminate()
            try:
                self._child.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._child.kill()
                self._child.wait()

    @property
    def running(self) -> bool:
        return self._child is not None

    def start(self, topic_id: str, why: Why) -> None:
        """Starts a cycle; one for drift only looks, unless it finds some. From the main thread, to
        which the child's life is tied.
        """
        what = "a look for drift" if why == "drift" else f"a fit of {self._settings.trainer.model}"
        log.info("%s begins (%s)", what, why)
        self._why = why
        self._answer = tempfile.TemporaryFile()  # noqa: SIM115 - `ended` closes it
        self._began = time.monotonic()
        self._child = subprocess.Popen(
            tethered([sys.executable, "-m", "trainer.cycle"]),
            stdin=subprocess.PIPE,
            stdout=self._answer,
            # The same packages as here, wherever the worker was started.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        assert self._child.stdin is not None
        with self._child.stdin as pipe:
            order = Order(settings=self._settings, topic_id=topic_id, why=why)
            pipe.write(msgspec.json.encode(order))

    def ended(self) -> tuple[Why, Outcome] | None:
        """A cycle that has ended since the last call, logged and counted: why it ran, and how."""
        if self._child is None or self._child.poll() is None:
            return None
        status, self._child = self._child.returncode, None
        assert self._answer is not None
        with self._answer as file:
            file.seek(0)
            answer = file.read()
        try:
            outcome = msgspec.json.decode(answer, type=Outcome)
        except msgspec.DecodeError:
            how = f"signal {-status}" if status < 0 else f"status {status}"
            outcome = Outcome(kind="failed", reason=f"the fitting process ended with {how}")
        _tell(outcome, time.monotonic() - self._began)
        return self._why, outcome


def _tell(outcome: Outcome, seconds: float) -> None:
    metrics.FITS.labels(outcome.kind).inc()
    metrics.FIT_SECONDS.observe(seconds)
    if outcome.candidate_ndcg is not None:
        metrics.GATE_NDCG.labels("candidate").set(outcome.candidate_ndcg)
    if outcome.against_ndcg is not None:
        metrics.GATE_NDCG.labels("serving").set(outcome.against_ndcg)
    if outcome.drift is not None:
        metrics.DRIFT_NDCG.labels("at its gate").set(outcome.drift.at_gate)
        metrics.DRIFT_NDCG.labels("now").set(outcome.drift.now)
    if outcome.drift_as_served is not None:
        metrics.DRIFT_NDCG.labels("as served at its gate").set(outcome.drift_as_served.at_gate)
        metrics.DRIFT_NDCG.labels("as served now").set(outcome.drift_as_served.now)
    if outcome.kind == "promoted":
        metrics.GENERATION_NUMBER.set(number_of(outcome.generation))
        metrics.GENERATION_CREATED_SECONDS.set(time.time())
        log.info("generation %s promoted: %s", outcome.generation, outcome.reason)
    else:
        level = logging.INFO if outcome.kind == "waiting" else logging.ERROR
        log.log(level, "fit %s, the serving generation stays: %s", outcome.kind, outcome.reason)
    if outcome.report:
        log.info("its report: %s", outcome.report)

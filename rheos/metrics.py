"""Metric names, one definition each, and the little server of /metrics, /healthz, /readyz.

Each worker process defines all metrics and moves its own; docs/operations.md is held against
``REGISTRY`` by a test.
"""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_FINE_SECONDS = (0.0005, 0.001, 0.0025, *_SECONDS)

# stream
EVENTS_ACCEPTED = Counter(
    "rheos_events_accepted", "Events folded into a user's state.", registry=REGISTRY
)
EVENTS_DUPLICATE = Counter(
    "rheos_events_duplicate", "Events already in their user's history.", registry=REGISTRY
)
EVENTS_REJECTED = Counter(
    "rheos_events_rejected", "Records that became dead letters.", ["reason"], registry=REGISTRY
)
LAG_MESSAGES = Gauge(
    "rheos_lag_messages",
    "Input positions not yet folded (markers count).",
    ["topic", "partition"],
    registry=REGISTRY,
)
COMMIT_SECONDS = Histogram(
    "rheos_commit_seconds",
    "One transaction: states, outputs, checkpoint.",
    ["agent"],
    buckets=_SECONDS,
    registry=REGISTRY,
)
COMMIT_FAILURES = Counter(
    "rheos_commit_failures",
    "Transactions that failed; the partition is opened again.",
    ["agent"],
    registry=REGISTRY,
)
BATCH_RECORDS = Histogram(
    "rheos_batch_records",
    "Input records in one transaction.",
    ["agent"],
    buckets=(1, 5, 20, 50, 100, 200, 500, 1000, 2000, 5000),
    registry=REGISTRY,
)
RESTORE_SECONDS = Histogram(
    "rheos_restore_seconds",
    "Opening a partition: fencing and reading its state.",
    ["agent"],
    buckets=_SECONDS,
    registry=REGISTRY,
)
PARTITIONS_OPEN = Gauge(
    "rheos_partitions_open", "Partitions that this worker owns.", ["agent"], registry=REGISTRY
)
PARTITIONS_STOPPED = Gauge(
    "rheos_partitions_stopped",
    "Partitions stopped by a cut or replaced input log.",
    ["agent"],
    registry=REGISTRY,
)

# every process that follows the generations
GENERATION_NUMBER = Gauge(
    "rheos_generation_number", "Number of the generation in service here.", registry=REGISTRY
)
GENERATION_CREATED_SECONDS = Gauge(
    "rheos_generation_created_seconds",
    "When the generation in service was made, seconds since 1970.",
    registry=REGISTRY,
)
SWAPS = Counter(
    "rheos_swaps", "Hot swaps by outcome (done, refused).", ["outcome"], registry=REGISTRY
)
SWAP_SECONDS = Histogram(
    "rheos_swap_seconds",
    "Loading, verifying and warming the next generation.",
    buckets=_SECONDS,
    registry=REGISTRY,
)

# indexer
FRESHNESS_SECONDS = Histogram(
    "rheos_freshness_seconds",
    "From an event's arrival at the broker until answers reflect it.",
    buckets=_SECONDS,
    registry=REGISTRY,
)
REQUEST_SECONDS = Histogram(
    "rheos_request_seconds",
    "One HTTP request, by route.",
    ["route", "status"],
    buckets=_FINE_SECONDS,
    registry=REGISTRY,
)
VIEW_LAG_MESSAGES = Gauge(
    "rheos_view_lag_messages",
    "Positions of a topic not yet in the live view.",
    ["topic"],
    registry=REGISTRY,
)
VIEW_USERS = Gauge("rheos_view_users", "Users in the live view.", registry=REGISTRY)
VIEW_ITEMS = Gauge("rheos_view_items", "Items in the live view.", registry=REGISTRY)
IMPRESSIONS = Counter(
    "rheos_impressions", "Answers written to the impressions topic.", registry=REGISTRY
)
IMPRESSIONS_LOST = Counter(
    "rheos_impressions_lost", "Answers that the broker did not take.", registry=REGISTRY
)

# trainer
FITS = Counter(
    "rheos_fits",
    "Fits by outcome (promoted, refused, failed, waiting).",
    ["outcome"],
    registry=REGISTRY,
)
FIT_SECONDS = Histogram(
    "rheos_fit_seconds",
    "One fit, from data set to snapshot.",
    buckets=(1, 5, 15, 60, 300, 900, 3600, 14400),
    registry=REGISTRY,
)
GATE_NDCG = Gauge(
    "rheos_gate_ndcg",
    "NDCG on the gate's window (candidate, serving).",
    ["which"],
    registry=REGISTRY,
)
LIVE_ANSWERS = Gauge(
    "rheos_live_answers",
    "Answers whose time for a click is over (serving, predecessor).",
    ["which"],
    registry=REGISTRY,
)
LIVE_CLICK_SHARE = Gauge(
    "rheos_live_click_share",
    "Share of these answers that were clicked (serving, predecessor).",
    ["which"],
    registry=REGISTRY,
)
ROLLBACKS = Counter(
    "rheos_rollbacks", "Automatic roll backs: too few answers were clicked.", registry=REGISTRY
)
DRIFT_NDCG = Gauge(
    "rheos_drift_ndcg",
    "NDCG of the serving generation (at its gate, now: on the newest events; alike as served).",
    ["which"],
    registry=REGISTRY,
)
TRAINER_LEADS = Gauge(
    "rheos_trainer_leads", "1 where this trainer fits, 0 where it waits.", registry=REGISTRY
)
ARCHIVE_OFFSET = Gauge(
    "rheos_archive_offset", "Next offset to archive.", ["partition"], registry=REGISTRY
)
ARCHIVE_LAG_MESSAGES = Gauge(
    "rheos_archive_lag_messages", "Positions not yet archived.", ["partition"], registry=REGISTRY
)
ARCHIVE_SKIPPED = Counter(
    "rheos_archive_skipped",
    "Records left out of the archive, refused as the stream refuses them.",
    ["reason"],
    registry=REGISTRY,
)


def render() -> tuple[bytes, str]:
    """The exposition text and its content type."""
    return generate_latest(REGISTRY), CONTENT_TYPE_LATEST


class MetricsServer:
    """/metrics, /healthz and /readyz on a thread of its own.

    ``not_ready`` returns why the worker is not ready, or None; ``unhealthy`` likewise. Port 0 takes
    any free one, told by ``port``. Raises OSError when the port is busy.
    """

    def __init__(
        self,
        host: str,
        port: int,
        not_ready: Callable[[], str | None],
        unhealthy: Callable[[], str | None] = lambda: None,
    ) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/metrics":
                    body, kind = render()
                    self._answer(200, body, kind)
                elif path in ("/healthz", "/readyz"):
                    problem = (unhealthy if path == "/healthz" else not_ready)()
                    self._answer(503 if problem else 200, (problem or "ok").encode(), "text/plain")
                else:
                    self._answer(404, b"not found", "text/plain")

            def _answer(self, status: int, body: bytes, kind: str) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                """Scrapes are no news."""

        self._server = ThreadingHTTPServer((host, port), Handler)
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="metrics", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

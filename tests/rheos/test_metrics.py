"""The little server of a worker's metrics and health."""

import httpx
import pytest

from rheos.metrics import EVENTS_ACCEPTED, MetricsServer


def test_metrics_health_and_readiness_are_served() -> None:
    problem: list[str | None] = ["reading user-state"]
    server = MetricsServer("127.0.0.1", 0, not_ready=lambda: problem[0])
    base = f"http://127.0.0.1:{server.port}"
    try:
        EVENTS_ACCEPTED.inc(0)
        text = httpx.get(f"{base}/metrics").text
        assert "rheos_events_accepted_total" in text
        assert httpx.get(f"{base}/healthz").status_code == 200
        answer = httpx.get(f"{base}/readyz")
        assert (answer.status_code, answer.text) == (503, "reading user-state")
        problem[0] = None
        assert httpx.get(f"{base}/readyz").status_code == 200
        assert httpx.get(f"{base}/secret").status_code == 404
    finally:
        server.close()


def test_a_busy_port_is_an_error_at_the_start() -> None:
    first = MetricsServer("127.0.0.1", 0, not_ready=lambda: None)
    try:
        with pytest.raises(OSError, match="in use"):
            MetricsServer("127.0.0.1", first.port, not_ready=lambda: None)
    finally:
        first.close()

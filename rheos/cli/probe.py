"""What a running worker says of itself over HTTP."""

import urllib.error
import urllib.request
from typing import Literal, NamedTuple

from rheos.cli.port import Port

TIMEOUT_S = 2.0
LAGS = {
    "rheos_lag_messages": "topic",
    "rheos_view_lag_messages": "topic",
    "rheos_archive_lag_messages": "",
}
"""Metrics of lag and the label that names the topic; the archive's topic is events."""


class WorkerStatus(NamedTuple):
    """``text`` says why it is not ready. ``lag_messages`` is by topic, partitions summed."""

    worker: str
    address: str
    state: Literal["ready", "not ready", "away"]
    text: str
    generation_number: int
    lag_messages: dict[str, int]


def probe(port: Port) -> WorkerStatus:
    """Ask /readyz and /metrics. Blocks for seconds at most; never raises for a worker's sake."""
    address = reached_at(port)
    status, text = _get(f"{address}/readyz")
    if status == 0:
        return WorkerStatus(port.owner, address, "away", text, 0, {})
    _, exposition = _get(f"{address}/metrics")
    generation, lags = _read(exposition)
    return WorkerStatus(
        port.owner,
        address,
        "ready" if status == 200 else "not ready",
        "" if status == 200 else text,
        generation,
        lags,
    )


def reached_at(port: Port) -> str:
    """The address for a client on this machine: who listens everywhere is here too."""
    host = "127.0.0.1" if port.host in ("0.0.0.0", "::", "") else port.host
    return f"http://[{host}]:{port.number}" if ":" in host else f"http://{host}:{port.number}"


def is_healthy(port: Port) -> bool:
    """Whether what listens there answers /healthz as a worker does."""
    status, text = _get(f"{reached_at(port)}/healthz")
    return status == 200 and "ok" in text[:100]


def _get(url: str) -> tuple[int, str]:
    """HTTP's status and the body; 0 and the reason when nobody answers."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:
            return response.status, response.read().decode(errors="replace").strip()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(errors="replace").strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return 0, getattr(reason, "strerror", None) or str(reason)


def _read(exposition: str) -> tuple[int, dict[str, int]]:
    from prometheus_client.parser import text_string_to_metric_families

    generation, lags = 0, dict[str, int]()
    try:
        families = list(text_string_to_metric_families(exposition))
    except ValueError:  # something else listens there
        return 0, {}
    for family in families:
        for sample in family.samples:
            if sample.name == "rheos_generation_number":
                generation = int(sample.value)
            if sample.name in LAGS:
                topic = sample.labels.get(LAGS[sample.name], "events (archive)")
                lags[topic] = lags.get(topic, 0) + int(sample.value)
    return generation, lags

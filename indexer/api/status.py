"""How the indexer stands: status for people and programs, health, readiness, metrics."""

import importlib.metadata
import time
from pathlib import Path
from typing import Any

from msgspec import Struct
from starlette.responses import PlainTextResponse, Response

from indexer.api.endpoint import Call, Endpoint, json_response
from rheos import fit_progress, metrics


class GenerationStatus(Struct):
    """The generation in service and its index; ``report``: whether its snapshot carries one."""

    name: str
    model: str
    dimensions: int
    items: int
    interactions: int
    created_ms: int
    metrics: dict[str, Any]
    index: str
    device: str
    new_items: int
    ranker: bool
    report: bool


class ViewStatus(Struct):
    """The live view; ``lag_messages``: positions not yet read, by topic."""

    users: int
    items: int
    catalogue: int
    lag_messages: dict[str, int]


class FitStatus(Struct):
    """A fit that runs: ``done`` of ``total`` parts of its ``stage``."""

    model: str
    stage: str
    done: int
    total: int
    began_ms: int


class SwapStatus(Struct):
    done: int
    refused_generation: str | None
    refused_reason: str | None


class Status(Struct):
    """``not_ready`` says why recommendations are not answered yet; ``now_ms`` follows the setting
    ``clock``; ``events_accepted`` are those in the states of present users; ``fit`` is what the
    trainer does now, as far as it shares the folder of snapshots, or null.
    """

    version: str
    ready: bool
    not_ready: str | None
    uptime_s: float
    now_ms: int
    clock: str
    events_accepted: int
    events_partitions: int
    event_types: list[str]
    generation: GenerationStatus | None
    fit: FitStatus | None
    view: ViewStatus
    swaps: SwapStatus


async def status(call: Call) -> Response:
    service = call.service
    view, serving, refused = service.view, service.swap.current, service.swap.refused
    not_ready = service.not_ready()
    generation = None
    if serving is not None:
        manifest = serving.generation.manifest
        generation = GenerationStatus(
            serving.name,
            manifest.model,
            manifest.dimensions,
            manifest.items,
            manifest.interactions,
            manifest.created_ms,
            manifest.metrics,
            serving.index.structure,
            serving.index.device,
            len(serving.delta),
            serving.generation.ranker is not None,
            "report.html" in manifest.files,
        )
    return json_response(
        Status(
            importlib.metadata.version("rheos"),
            not_ready is None,
            not_ready,
            time.time() - service.started,
            view.now_ms(),
            service.settings.clock,
            view.users.events_accepted,
            service.settings.kafka.events_partitions,
            sorted(service.settings.events.weights),
            generation,
            _fit(service.settings.store_dir),
            ViewStatus(
                len(view.users), len(view.next_lists), len(view.catalogue), view.lag_messages()
            ),
            SwapStatus(
                service.swap.swaps,
                refused and refused.generation,
                refused and refused.reason,
            ),
        )
    )


def _fit(store_dir: Path) -> FitStatus | None:
    found = fit_progress.read(store_dir)
    if found is None:
        return None
    return FitStatus(found.model, found.stage, found.done, found.total, found.began_ms)


async def healthz(call: Call) -> Response:
    return _probe(call.service.unhealthy())


async def readyz(call: Call) -> Response:
    return _probe(call.service.not_ready())


async def exposition(call: Call) -> Response:
    body, kind = metrics.render()
    return Response(body, headers={"Content-Type": kind})


def _probe(problem: str | None) -> Response:
    """Plain text, as every worker answers its probes."""
    return PlainTextResponse(problem or "ok", 503 if problem else 200)


ENDPOINTS = [
    Endpoint("GET", "/v1/status", status, "How the indexer stands.", {200: Status}),
    Endpoint("GET", "/healthz", healthz, "Whether only a restart can help.", {200: str, 503: str}),
    Endpoint(
        "GET",
        "/readyz",
        readyz,
        "Whether recommendations are answered.",
        {200: str, 503: str},
    ),
    Endpoint("GET", "/metrics", exposition, "Metrics for Prometheus.", {200: str}),
]

"""A cycle that learns a blend, on a real Kafka: it is in what serves, and stays where it must."""

from pathlib import Path

import numpy as np
import pytest

from rheos.events import Event
from rheos.generation import Generation
from rheos.local_kafka import KafkaProcess
from rheos.snapshot_store import LocalStore
from tests.trainer.shop import START_MS, send, settings_for
from trainer.blending import as_served, learning
from trainer.cycle import train_once

pytestmark = pytest.mark.kafka

MINUTE_MS = 60_000


def visits(count: int, *, start: int = 0) -> list[Event]:
    """Purchases in visits of some minutes, each in one department, hours after the one before."""
    random = np.random.default_rng(start + 1)
    events: list[Event] = []
    visit = start
    while len(events) < count:
        visit += 1
        user, department = int(random.integers(40)), int(random.integers(6))
        events += [
            Event(
                user_id=f"u{user}",
                item_id=f"i{6 * int(item) + department}",
                type="purchase",
                time_ms=START_MS + (60 * visit + step) * MINUTE_MS,
            )
            for step, item in enumerate(random.integers(0, 50, random.integers(3, 8)))
        ]
    return events


def test_a_blend_is_learned_published_and_kept_where_too_little_is_new(
    broker: KafkaProcess, prefix: str, tmp_path: Path
) -> None:
    settings = settings_for(
        broker.bootstrap, prefix, tmp_path, blend="linear", gate_tolerance=0.9, gate_min_events=30
    )
    store = LocalStore(settings.store_dir)
    send(settings, visits(2500))
    stages: list[str] = []
    first = train_once(settings, lambda stage, done, total: stages.append(stage))
    assert first.kind == "promoted", first.reason
    assert list(dict.fromkeys(stages))[-3:] == ["blend", "refit", "publish"]
    generation = Generation(store.get(first.generation))
    assert generation.blend is not None
    metrics = generation.manifest.metrics
    assert metrics["blend_linear_ndcg@20"] >= metrics["blend_trend_ndcg@20"]
    send(settings, visits(120, start=3000))
    second = train_once(settings)
    assert second.kind == "promoted", second.reason
    again = Generation(store.get(second.generation))
    assert again.blend is not None
    assert dict(again.blend.weights) == dict(generation.blend.weights)
    assert "blend_linear_ndcg@20" not in again.manifest.metrics


def test_the_gate_asks_of_both_as_they_are_served(
    broker: KafkaProcess, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_for(
        broker.bootstrap, prefix, tmp_path, blend="linear", gate_tolerance=0.9, gate_min_events=300
    )
    store = LocalStore(settings.store_dir)
    send(settings, visits(2500))
    first = train_once(settings)
    assert first.kind == "promoted", first.reason
    assert "as served" not in first.reason  # there was nothing to be held against
    send(settings, visits(1500, start=3000))

    with monkeypatch.context() as patch:
        told = as_served.AsServed(False, "as served it is worse", {"gate_served_p_value": 0.0})
        patch.setattr(as_served, "compare", lambda *_: told)
        refused = train_once(settings)
    assert refused.kind == "refused"
    assert refused.reason.endswith("; as served it is worse")
    assert refused.metrics["gate_served_p_value"] == 0.0
    assert "as served it is worse" in Path(refused.report).read_text("utf-8")

    def failing(*_: object) -> object:
        raise MemoryError("all is full")

    with monkeypatch.context() as patch:
        # Nothing that comes after the first question costs a generation that has passed it.
        patch.setattr(as_served, "compare", failing)
        patch.setattr(learning, "learn", failing)
        second = train_once(settings)
    assert second.kind == "promoted"
    assert second.troubles == ["no blend: MemoryError: all is full"]
    kept = Generation(store.get(second.generation)).blend
    before = Generation(store.get(first.generation)).blend
    assert kept is not None
    assert before is not None
    assert dict(kept.weights) == dict(before.weights)

    send(settings, visits(1500, start=6000))
    third = train_once(settings)
    assert third.kind == "promoted", third.reason
    assert "; as served NDCG@20 0." in third.reason
    metrics = Generation(store.get(third.generation)).manifest.metrics
    assert metrics["gate_served_ndcg@20"] > 0 < metrics["gate_served_against_ndcg@20"]
    assert third.troubles == []

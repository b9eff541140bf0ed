"""A cycle that learns a blend, on a real Kafka: it is in what serves, and stays where it must."""

from pathlib import Path

import numpy as np
import pytest

from rheos.events import Event
from rheos.generation import Generation
from rheos.local_kafka import KafkaProcess
from rheos.snapshot_store import LocalStore
from tests.trainer.shop import START_MS, send, settings_for
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

"""A cycle that learns a blend, on a real Kafka: it is in what serves, and stays where it must."""

from pathlib import Path

import pytest

from rheos.generation import Generation
from rheos.local_kafka import KafkaProcess
from rheos.snapshot_store import LocalStore
from tests.trainer.shop import send, settings_for, visits
from trainer.archiver import Archiver
from trainer.blending import as_served, learning
from trainer.cycle import run_cycle, train_once
from trainer.gate import Drift

pytestmark = pytest.mark.kafka


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
    assert Generation(store.get(first.generation)).manifest.metrics["gate_served_ndcg@20"] > 0
    send(settings, visits(1500, start=3000))
    with Archiver(settings) as archiver:
        archiver.catch_up()
    looked = run_cycle(settings, archiver.archive, only_if_drifted=True)
    assert looked.kind == "waiting"
    assert "; as served NDCG@20 0." in looked.reason
    assert looked.drift is not None
    assert looked.drift_as_served is not None
    assert looked.drift_as_served.now > 0

    with monkeypatch.context() as patch:
        told = as_served.AsServed(False, "as served it is worse", {"gate_served_p_value": 0.0})
        patch.setattr(as_served, "compare", lambda *_: told)
        # The model has not drifted; that what it answers has is enough.
        patch.setattr(as_served, "drift", lambda *_: Drift(0.3, 0.1, has_fallen=True))
        refused = run_cycle(settings, archiver.archive, only_if_drifted=True)
    assert refused.kind == "refused"
    assert refused.drift is not None
    assert not refused.drift.has_fallen
    assert refused.drift_as_served == Drift(0.3, 0.1, has_fallen=True)
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

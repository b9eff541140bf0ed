"""Every registered model through a whole cycle on a real Kafka, with a ranker learned on top."""

from pathlib import Path

import pytest

from rheos.announcements import ruling
from rheos.generation import Generation
from rheos.local_kafka import KafkaProcess
from rheos.snapshot_store import LocalStore
from tests.contract.test_models import CASES, Case
from tests.trainer.shop import send, settings_for
from tests.trainer.test_blend_cycle import visits
from trainer.blending import learning
from trainer.cycle import train_once

pytestmark = [pytest.mark.kafka, pytest.mark.slow]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_it_is_fitted_judged_ranked_and_announced(
    case: Case,
    broker: KafkaProcess,
    prefix: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(learning, "MOST_QUERIES", 150)
    monkeypatch.setattr(learning, "LEAST_QUERIES", {"linear": 60, "trees": 100})
    settings = settings_for(
        broker.bootstrap,
        prefix,
        tmp_path,
        model=case.name,
        parameters=case.parameters,
        blend="trees",
        gate_tolerance=0.99,  # whether it is any good is the contract suite's question
    )
    send(settings, visits(1500))
    outcome = train_once(settings)
    assert (outcome.kind, outcome.model) == ("promoted", case.name), outcome.reason
    announced = ruling(settings)
    assert announced is not None
    assert announced.generation == outcome.generation
    generation = Generation(LocalStore(settings.store_dir).get(outcome.generation))
    assert generation.manifest.model == case.name
    assert generation.manifest.interactions == outcome.interactions
    # A model that guards its users' privacy gets no ranker: it would tell what is hidden.
    ranked = "blend_trees_ndcg@20" in generation.manifest.metrics
    assert ranked == (generation.manifest.privacy is None)

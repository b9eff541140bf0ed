"""Generations trained by ``rheos train``, of one model and then of another, served live."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from rheos.generation import Generation
from rheos.local_kafka import KafkaProcess
from rheos.settings import Settings
from rheos.snapshot_store import LocalStore
from rheos.state import History
from tests.integration.indexer_rig import Indexer, running, until
from tests.trainer.shop import send, settings_for, taste

pytestmark = pytest.mark.kafka

K = 10
PAST = ["i1", "i6", "i11", "i16"]  # of one department
PARAMETERS = {
    "als": {"factors": 6, "iterations": 4},
    "neumf": {"factors": 8, "mlp_factors": 8, "gmf_learning_rate": 0.05},
}


def train(settings: Settings, model: str) -> dict[str, Any]:
    """What `rheos train` says, in a process of its own, as people run it."""
    trainer = settings.trainer
    environment = {
        "RHEOS_CONFIG": os.devnull,
        "RHEOS_DATA_DIR": settings.data_dir,
        "RHEOS_KAFKA_BOOTSTRAP": settings.kafka.bootstrap,
        "RHEOS_KAFKA_PREFIX": settings.kafka.prefix,
        "RHEOS_KAFKA_EVENTS_PARTITIONS": str(settings.kafka.events_partitions),
        "RHEOS_TRAINER_MODEL": model,
        "RHEOS_TRAINER_PARAMETERS": json.dumps(PARAMETERS[model]),
        "RHEOS_TRAINER_MIN_EVENTS": str(trainer.min_events),
        "RHEOS_TRAINER_GATE_MIN_EVENTS": str(trainer.gate_min_events),
        "RHEOS_TRAINER_GATE_TOLERANCE": "0.9",  # which of them is better is not the question here
        "RHEOS_TRAINER_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-m", "rheos.cli", "train", "--json"],
        env=os.environ | environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    outcome: dict[str, Any] = json.loads(done.stdout)
    return outcome


def answer(indexer: Indexer) -> dict[str, Any]:
    body = {"history": [{"item_id": item} for item in PAST], "k": K, "sources": ["vector"]}
    found = indexer.client.post("/v1/recommendations", json=body)
    assert found.status_code == 200, found.text
    (one,) = found.json()["answers"]
    return dict(one)


def by_hand(generation: Generation) -> list[str]:
    """The best K by the generation's own numbers; all items fit into the retrieval's depth."""
    count = len(PAST)
    history = History(PAST, np.ones(count, np.float32), np.arange(count, dtype=np.int64))
    user = generation.encoder.encode([history])[0]
    rows = np.arange(len(generation.item_ids))
    if generation.ranker is None:
        scores = generation.item_vectors @ user[: generation.dimensions]
    else:
        scores = generation.ranker.score(user, rows)
    order = [generation.item_ids[row] for row in np.argsort(-scores, kind="stable")]
    return [item for item in order if item not in PAST][:K]


def test_als_and_neumf_generations_take_turns_in_service(
    broker: KafkaProcess, prefix: str, tmp_path: Path
) -> None:
    settings = settings_for(broker.bootstrap, prefix, tmp_path)
    settings = msgspec.structs.replace(
        settings, indexer=msgspec.structs.replace(settings.indexer, port=0)
    )
    store = LocalStore(settings.store_dir)
    send(settings, taste(1000))
    with running(settings) as indexer:
        indexer.ready()
        for turn, model in enumerate(("als", "neumf", "als")):
            outcome = train(settings, model)
            assert (outcome["kind"], outcome["model"]) == ("promoted", model)
            name = outcome["generation"]
            until(lambda name=name: answer(indexer)["generation"] == name, 30)  # type: ignore[misc]
            generation = Generation(store.get(name))
            assert (generation.ranker is not None) == (model == "neumf")
            found = [item["item_id"] for item in answer(indexer)["items"]]
            assert found == by_hand(generation)
            # A visitor of this department sees more of it.
            assert sum(int(item[1:]) % 5 == 1 for item in found) >= 0.7 * K
            send(settings, taste(600, start=1000 + 600 * turn))

"""The service without Kafka: what it says while its topics are not what the settings say."""

from pathlib import Path
from typing import Any

import pytest

from indexer import service as service_module
from indexer.service import Service
from rheos import topics
from rheos.settings import Settings, from_tree
from tests.integration.indexer_rig import until


def test_unfit_topics_are_why_it_is_not_ready_until_they_are_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = {
        "name": "s",
        "topic": "t",
        "user": "u",
        "item": "i",
        "time": "d",
        "fixed_type": "view",
    }
    tree: dict[str, Any] = {
        "data_dir": str(tmp_path),
        "kafka": {"bootstrap": "127.0.0.1:1"},
        "sources": [source],
    }
    problem = "topic rheos.events has 3 partitions, the settings say 8"
    found = [[problem], [problem], []]
    asked: list[Settings] = []

    def ensure(settings: Settings) -> list[str]:
        asked.append(settings)
        return found.pop(0)

    monkeypatch.setattr(service_module, "is_reachable", lambda _: True)
    monkeypatch.setattr(service_module, "UNFIT_S", 0.3)
    monkeypatch.setattr(topics, "ensure", ensure)
    service = Service(from_tree(tree))
    service.start()
    try:
        until(lambda: service.not_ready() == problem)
        until(lambda: service.not_ready() == "waiting for Kafka at 127.0.0.1:1")
    finally:
        service.close()
    assert found == []
    assert asked[0].sources == []  # another worker's business

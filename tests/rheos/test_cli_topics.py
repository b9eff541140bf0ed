"""`rheos topics` on a real broker."""

import json
import os
from typing import Any

import pytest

from rheos.cli import main
from rheos.local_kafka import KafkaProcess

pytestmark = pytest.mark.kafka


@pytest.fixture
def topics(
    broker: KafkaProcess,
    prefix: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Any:
    monkeypatch.setattr(os, "environ", os.environ.copy())

    def run(*words: str, **variables: str) -> tuple[int, Any]:
        os.environ.update(
            {"RHEOS_KAFKA_BOOTSTRAP": broker.bootstrap, "RHEOS_KAFKA_PREFIX": prefix, **variables}
        )
        status = main(["topics", *words, "--json"])
        return status, json.loads(capsys.readouterr().out)

    return run


def test_missing_topics_are_listed_named_and_made(topics: Any, prefix: str) -> None:
    status, rows = topics()
    assert status == 0
    assert {row["partitions"] for row in rows} == {0}

    status, told = topics("check")
    assert status == 1
    assert f"topic {prefix}.events does not exist" in told["problems"]

    assert topics("create") == (0, {"prefix": prefix, "problems": []})
    assert topics("create") == (0, {"prefix": prefix, "problems": []})
    status, rows = topics("list")
    assert {row["partitions"] for row in rows} == {1, 4}
    assert {row["cleanup"] for row in rows} == {"compact", "delete"}


def test_existing_topics_are_named_and_left_as_they_are(topics: Any, prefix: str) -> None:
    topics("create")

    status, told = topics("create", RHEOS_KAFKA_EVENTS_PARTITIONS="6")

    assert status == 1
    assert any(
        f"{prefix}.events has 4 partitions, the settings say 6" in text for text in told["problems"]
    )
    _, rows = topics()
    assert next(row for row in rows if row["topic"] == f"{prefix}.events")["partitions"] == 4


def test_topics_of_a_prefix_can_be_deleted_and_no_others(
    broker: KafkaProcess, prefix: str, topics: Any
) -> None:
    from kafka import KafkaAdminClient

    from rheos.cli.broker import delete_topics
    from rheos.settings import from_tree

    topics("create")
    topics("create", RHEOS_KAFKA_PREFIX=f"{prefix}2")
    delete_topics(from_tree({"kafka": {"bootstrap": broker.bootstrap, "prefix": prefix}}))
    admin = KafkaAdminClient(bootstrap_servers=[broker.bootstrap])
    left = [name for name in admin.list_topics() if name.startswith(prefix)]
    admin.close()

    assert left
    assert all(name.startswith(f"{prefix}2.") for name in left)

"""Topics on a real broker: made as they must be, existing wrong ones named and left alone."""

import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from rheos import topics
from rheos.local_kafka import KafkaProcess
from rheos.settings import Settings, from_tree

pytestmark = pytest.mark.kafka


def settings_for(broker: KafkaProcess, prefix: str, **more: object) -> Settings:
    return from_tree({"kafka": {"bootstrap": broker.bootstrap, "prefix": prefix}, **more})


def test_all_topics_are_made_once_with_their_settings(broker: KafkaProcess, prefix: str) -> None:
    settings = settings_for(broker, prefix)
    assert topics.ensure(settings) == []
    assert topics.ensure(settings) == []
    assert topics.ensure(settings, create=False) == []
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    try:
        name = topics.Topics(settings).user_state
        configs = admin.describe_configs(
            [ConfigResource(ConfigResourceType.TOPIC, name)], config_filter="all"
        )["topic"][name]
        assert configs["cleanup.policy"]["value"] == "compact"
        assert configs["message.timestamp.type"]["value"] == "LogAppendTime"
    finally:
        admin.close()


def test_missing_topics_are_named_when_none_may_be_made(broker: KafkaProcess, prefix: str) -> None:
    problems = topics.ensure(settings_for(broker, prefix), create=False)
    assert f"topic {prefix}.events does not exist" in problems


def test_existing_wrong_topics_are_named_and_not_altered(broker: KafkaProcess, prefix: str) -> None:
    settings = settings_for(broker, prefix)
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    try:
        admin.create_topics(
            {f"{prefix}.events": {"num_partitions": 3, "replication_factor": 1, "configs": {}}},
            wait_for_metadata=True,
        )
        problems = topics.ensure(settings)
        assert any("has 3 partitions, the settings say 4" in line for line in problems)
        assert any("message.timestamp.type=CreateTime" in line for line in problems)
        [described] = admin.describe_topics([f"{prefix}.events"])
        assert len(described["partitions"]) == 3
    finally:
        admin.close()


def test_a_sources_intake_topic_has_the_sources_partitions(
    broker: KafkaProcess, prefix: str
) -> None:
    source = {
        "name": "orders",
        "topic": f"{prefix}-shop-orders",
        "user": "customer",
        "item": "sku",
        "time": "at",
        "fixed_type": "purchase",
    }
    settings = settings_for(broker, prefix, sources=[source])
    problems = topics.ensure(settings)
    assert problems == [f"source orders: topic {prefix}-shop-orders does not exist"]
    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    try:
        admin.create_topics(
            {source["topic"]: {"num_partitions": 3, "replication_factor": 1}},
            wait_for_metadata=True,
        )
        assert topics.ensure(settings) == []
        [described] = admin.describe_topics([f"{prefix}.intake.orders"])
        assert len(described["partitions"]) == 3
    finally:
        admin.close()

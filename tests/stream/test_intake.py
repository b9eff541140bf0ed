"""Foreign records to events, apart from Kafka."""

import json
from typing import Any

import pytest

from rheos.ids import partition_of
from rheos.settings import Settings, from_tree
from stream.agent import Changes
from stream.intake import intake_agent
from tests.stream.kafka_log import Entry


def shop(**source: Any) -> Settings:
    return from_tree(
        {
            "kafka": {"events_partitions": 4},
            "sources": [
                {
                    "name": "orders",
                    "topic": "shop.orders",
                    "user": "customer.id",
                    "item": "sku",
                    "time": "at",
                    "fixed_type": "purchase",
                    **source,
                }
            ],
        }
    )


def fold(settings: Settings, *values: bytes | None) -> Changes:
    agent = intake_agent(settings, settings.sources[0])
    records = [Entry(10 + n, 99, b"foreign key", value) for n, value in enumerate(values)]
    return agent.new_fold(2)(records, lambda key: None)


def order(**changes: Any) -> bytes:
    return json.dumps({"customer": {"id": 17}, "sku": "cup", "at": 1000, **changes}).encode()


def test_an_event_goes_to_its_users_partition_keyed_by_the_user() -> None:
    (output,) = fold(shop(), order()).outputs
    assert output.topic == "rheos.events"
    assert output.key == b"17"
    assert output.partition == partition_of("17", 4)
    assert json.loads(output.value) == {
        "user_id": "17",
        "item_id": "cup",
        "type": "purchase",
        "time_ms": 1000,
    }


def test_an_order_sent_twice_stays_recognisable_as_the_same_event() -> None:
    first, second = fold(shop(), order(), order()).outputs
    assert first == second
    (named,) = fold(shop(event_id="number"), order(number=5)).outputs
    assert json.loads(named.value)["event_id"] == "5"


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, "tombstone"),
        (b"no", "not_json"),
        (b"[]", "wrong_type"),
        (order(customer={}), "missing_field"),
        (order(customer={"id": ""}), "empty_id"),
        (order(customer={"id": "x" * 300}), "long_id"),
        (order(sku="x" * 70_000), "too_large"),
    ],
)
def test_what_has_no_place_in_the_events_topic_is_a_letter_with_the_foreign_bytes(
    value: bytes | None, reason: str
) -> None:
    changes = fold(shop(), order(), value)
    assert len(changes.outputs) == 1
    (letter,) = changes.dead_letters
    assert letter.reason == reason
    assert letter.place == "shop.orders[2]@11"
    assert letter.source == "orders"
    assert letter.key == b"foreign key"
    assert letter.value == (None if value is None else value[: 64 * 1024])


def test_the_limits_of_an_event_are_left_to_the_users_agent() -> None:
    (output,) = fold(shop(fixed_type="", type="kind"), order(kind="unheard of")).outputs
    assert json.loads(output.value)["type"] == "unheard of"

"""`rheos up` on this machine: it serves, heals, stops, resumes, and counts nothing twice."""

import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from kafka import KafkaConsumer, TopicPartition

from rheos.client import ApiError, Client
from rheos.local_kafka import KafkaProcess
from rheos.state import CHECKPOINT_KEY, decode_user_state
from tests.integration.running_up import Place, until, up

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

STOPS_WITHIN_S = 15.0
"""Ten seconds by the graces, and what a busy machine adds."""
CUSTOMERS = ("17850", "13047", "12583", "13748", "15100")
"""Of the demo's first hours."""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def committed(place: Place, topic: str) -> Iterator[Any]:
    """Every record of a topic, up to its present end."""
    consumer = KafkaConsumer(
        bootstrap_servers=[place.bootstrap],
        group_id=None,
        isolation_level="read_committed",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    try:
        places = [
            TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()
        ]
        consumer.assign(places)
        consumer.seek_to_beginning(*places)
        ends = consumer.end_offsets(places)
        while any(consumer.position(place) < end for place, end in ends.items()):
            for records in consumer.poll(timeout_ms=500).values():
                yield from records
    finally:
        consumer.close()


def folded(place: Place, prefix: str) -> Counter[str]:
    """What the states say: events accepted and duplicate, over all users."""
    latest = {record.key: record.value for record in committed(place, f"{prefix}.user-state")}
    counts: Counter[str] = Counter()
    for key, value in latest.items():
        if value is not None and key != CHECKPOINT_KEY:
            state = decode_user_state(value)
            counts["accepted"] += state.accepted
            counts["duplicates"] += state.duplicates
    return counts


def as_of(client: Client, user: str) -> Any:
    try:
        return client.recommendations(user, 5)["as_of"]
    except ApiError:
        return None


def has_accepted(place: Place, count: int) -> bool:
    return folded(place, "rheos")["accepted"] == count


def sent_by(client: Client, one: dict[str, Any]) -> bool:
    """As a client does that the API told to try again: the event's id makes it safe."""
    try:
        client.send([one])
    except ApiError as error:
        if error.status != 503:
            raise
        return False
    return True


def event(user: str, item: str) -> dict[str, Any]:
    return {"user_id": user, "item_id": item, "type": "view", "event_id": f"{user}-{item}"}


def test_it_heals_whatever_is_killed_and_resumes(place: Place) -> None:
    with up(place) as running, Client(place.url) as client:
        running.says("everything is ready")
        assert place.are_ready()
        client.send([event("ann", f"item-{n}") for n in range(5)])
        until(lambda: bool(as_of(client, "ann")))

        crashed = ("stream", "indexer", "trainer", "kafka")
        for sent, name in enumerate(crashed, 6):
            running.crash(name)
            until(place.are_ready, tell=lambda: running.log)
            until(partial(sent_by, client, event("ann", f"after-{name}")))
            until(partial(has_accepted, place, sent), tell=lambda: running.log)
        assert running.stop() < STOPS_WITHIN_S

    with up(place) as running, Client(place.url) as client:
        running.says("everything is ready")
        accepted = folded(place, "rheos")
        assert accepted["accepted"] == sent
        before = as_of(client, "ann")
        running.crash_supervisor()

    with up(place) as running, Client(place.url) as client:
        running.says("everything is ready")
        assert as_of(client, "ann") == before
        assert folded(place, "rheos") == accepted
        # The client's own retry, after all that.
        client.send([event("ann", "after-kafka")])
        until(lambda: folded(place, "rheos") == accepted + Counter(duplicates=1))
        assert running.stop() < STOPS_WITHIN_S


def test_a_second_up_on_the_same_folder_is_refused(place: Place) -> None:
    with up(place) as running:
        running.says("kafka is ready")

        refused = place.rheos("up")

        assert refused.returncode == 1
        assert "in use by process" in refused.stderr
        running.stop()


def test_with_kafka_it_uses_yours_and_leaves_it_running(
    place: Place, broker: KafkaProcess, prefix: str
) -> None:
    with up(place, "--kafka", broker.bootstrap, RHEOS_KAFKA_PREFIX=prefix) as running:
        running.says("everything is ready")
        assert set(running.children()) == {"stream", "indexer", "trainer"}
        assert f"Kafka    {broker.bootstrap}, topics {prefix}.*" in running.log
        assert running.stop() < STOPS_WITHIN_S

    assert broker.running
    assert not (place.folder / "rheos" / "default" / "kafka").exists()


def replayed(place: Place) -> Counter[str]:
    """What the replay's own position says of the rows sent so far."""
    found: Counter[str] = Counter()
    for record in committed(place, "demo.replay"):
        if record.key.startswith(b"online-retail"):
            found = Counter(msgspec.json.decode(record.value).get("counts", {}))
    return found


def answers(client: Client) -> list[Any]:
    return [
        (answer["generation"], answer["as_of"], answer["items"])
        for answer in (client.recommendations(customer, 10) for customer in CUSTOMERS)
    ]


def test_the_demo_learns_serves_and_goes_on_where_it_was_stopped(place: Place) -> None:
    # The demo's data without its player: nothing moves, so that answers can be compared.
    still = {
        "RHEOS_DATA_DIR": str(place.folder / "rheos" / "demo"),
        "RHEOS_KAFKA_PREFIX": "demo",
        "RHEOS_CLOCK": "stream",
    }
    with up(place, "--demo", "--fresh") as running:
        running.says("%  backfill ")  # a bar of progress: it is in the middle of it
        running.crash("demo")
        served_s = running.says("personal recommendations of generation 1-")
        print(f"personal recommendations after {served_s:.0f} s, a kill of the player included")
        assert running.stop() < STOPS_WITHIN_S
        trained = [line for line in running.lines if "promoted" in line and "demo" in line]
        assert len(trained) == 1

    with up(place, **still) as running, Client(place.url) as client:
        running.says("everything is ready")
        sent = replayed(place)
        events, refused = sent["events"], sent.total() - sent["events"]
        until(lambda: folded(place, "demo").total() >= events, tell=lambda: running.log)
        time.sleep(1)
        assert folded(place, "demo").total() == events
        assert sum(1 for _ in committed(place, "demo.dead-letters")) == refused
        before = answers(client)
        assert all(items and as_of for _, as_of, items in before)
        running.crash_supervisor()

    with up(place, **still) as running, Client(place.url) as client:
        running.says("everything is ready")
        assert answers(client) == before
        assert running.stop() < STOPS_WITHIN_S

    with up(place, "--demo", "--speed", "0") as running:
        running.says("personal recommendations of generation 1-")
        running.says("live stream")
        until(lambda: replayed(place).total() > sent.total())
        assert not any("promoted" in line for line in running.lines), "it serves already"
        assert not any("catalogue" in line for line in running.lines), "it is loaded already"
        running.stop()

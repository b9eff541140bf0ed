"""Announcements on a real broker: the latest of a slot rules, whoever reads when."""

import threading
import time
from collections.abc import Callable

import pytest
from kafka import KafkaProducer

from rheos import topics
from rheos.announcements import SERVING, Announcement, announce, follow, read_all, ruling
from rheos.local_kafka import KafkaProcess
from rheos.settings import from_tree
from rheos.topics import Topics

pytestmark = pytest.mark.kafka


def announcement(number: int, generation: str, slot: str = SERVING) -> Announcement:
    return Announcement(
        number=number, slot=slot, generation=generation, reason="test", time_ms=number
    )


def test_the_latest_announcement_of_a_slot_rules(broker: KafkaProcess, prefix: str) -> None:
    settings = from_tree({"kafka": {"bootstrap": broker.bootstrap, "prefix": prefix}})
    topics.ensure(settings)
    assert ruling(settings) is None
    announce(settings, announcement(1, "1-00000001"))
    announce(settings, announcement(2, "2-00000002"))
    announce(settings, announcement(1, "9-00000009", slot="shadow"))
    found = ruling(settings)
    assert found is not None
    assert found.generation == "2-00000002"
    assert [one.generation for one in read_all(settings)][-1] == "9-00000009"


def test_a_follower_gets_the_ruling_one_then_each_new_one(
    broker: KafkaProcess, prefix: str
) -> None:
    settings = from_tree({"kafka": {"bootstrap": broker.bootstrap, "prefix": prefix}})
    topics.ensure(settings)
    announce(settings, announcement(1, "1-00000001"))
    announce(settings, announcement(2, "2-00000002"))
    heard: list[str] = []
    stop = threading.Event()
    thread = threading.Thread(
        target=follow, args=(settings, lambda found: heard.append(found.generation), stop)
    )
    thread.start()
    try:
        _until(lambda: heard == ["2-00000002"])
        announce(settings, announcement(3, "1-00000001"))
        _until(lambda: heard == ["2-00000002", "1-00000001"])
    finally:
        stop.set()
        thread.join(60)
    assert not thread.is_alive()


@pytest.mark.parametrize("value", [b"\xff\xfe", b"{}", b'{"number":1,"slot":"\xff"}', b"[" * 9999])
def test_a_record_that_is_no_announcement_is_passed_over_and_told(
    broker: KafkaProcess, prefix: str, caplog: pytest.LogCaptureFixture, value: bytes
) -> None:
    settings = from_tree({"kafka": {"bootstrap": broker.bootstrap, "prefix": prefix}})
    topics.ensure(settings)
    announce(settings, announcement(1, "1-00000001"))
    topic = Topics(settings).generations
    producer = KafkaProducer(bootstrap_servers=broker.bootstrap)
    producer.send(topic, key=b"bad", value=value, partition=0).get(30)
    producer.close()
    announce(settings, announcement(2, "2-00000002"))
    assert [found.number for found in read_all(settings)] == [1, 2]
    assert f"{topic}[0]@1 is no announcement" in caplog.text


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)

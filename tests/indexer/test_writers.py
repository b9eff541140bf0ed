"""The writers without Kafka: a topic that lacks the partition is an answer, not a crash."""

import time
from typing import Any

import pytest

from indexer.event_writer import EventWriter, NotWrittenError, Record
from indexer.impression_writer import ImpressionWriter
from rheos import metrics
from rheos.impressions import Impression
from rheos.settings import from_tree
from tests.integration.indexer_rig import until


class Narrow:
    """A producer whose topics have one partition."""

    def send(self, topic: str, *, partition: int, **_: Any) -> None:
        raise ValueError(f"Unrecognized partition {partition} for topic {topic}")

    def close(self, timeout: float) -> None:
        pass


async def test_an_event_for_a_partition_that_does_not_exist_is_not_written() -> None:
    writer = EventWriter(from_tree({}))
    writer._producer = Narrow()
    with pytest.raises(NotWrittenError, match="Unrecognized partition 7 for topic t"):
        await writer.write([Record("t", 7, b"u", b"{}")])
    writer.close()


def test_an_impression_for_a_partition_that_does_not_exist_is_lost_and_the_thread_lives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("indexer.impression_writer.RETRY_S", 0.0)
    writer = ImpressionWriter(from_tree({}))
    monkeypatch.setattr(writer, "_new_producer", Narrow)
    before = metrics.IMPRESSIONS_LOST._value.get()
    writer.start()
    for number in range(2):
        writer.put(
            Impression(
                request_id=f"r{number}",
                user_id=None,
                generation=None,
                time_ms=int(time.time() * 1000),
                items=[],
            )
        )
    until(lambda: metrics.IMPRESSIONS_LOST._value.get() == before + 2)
    writer.close()

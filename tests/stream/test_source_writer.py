"""What a source does while Kafka does not answer, without one."""

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from rheos.settings import from_tree
from stream import dead_letters
from stream.committed_log import CommittedLogError
from stream.source_writer import Position, SourceError, SourceWriter, Stopped


class Producer:
    """Fails as it is told to, then knows a topic of three partitions."""

    def __init__(self, *codes: int) -> None:
        self._codes = list(codes)

    def list_topics(self, topic: str, timeout: float) -> Any:
        if self._codes:
            raise KafkaException(KafkaError(self._codes.pop(0)))
        return SimpleNamespace(topics={topic: SimpleNamespace(partitions={0: 0, 1: 0, 2: 0})})


@pytest.fixture
def notices() -> list[str]:
    return []


@pytest.fixture
def writer(monkeypatch: pytest.MonkeyPatch, notices: list[str]) -> SourceWriter:
    monkeypatch.setattr("stream.source_writer.FIRST_WAIT_S", 0.001)
    stop = threading.Event()
    return SourceWriter(from_tree({}), "shop.csv@0", stop=stop, notice=notices.append)


def test_partitions_are_asked_for_until_kafka_answers(
    writer: SourceWriter, notices: list[str]
) -> None:
    writer._producer = Producer(KafkaError._TRANSPORT, KafkaError._TIMED_OUT)
    assert writer.partitions("t") == 3
    assert len(notices) == 2
    assert "waiting for Kafka" in notices[0]


def test_partitions_that_kafka_forbids_to_see_end_the_run(writer: SourceWriter) -> None:
    writer._producer = Producer(KafkaError.TOPIC_AUTHORIZATION_FAILED)
    with pytest.raises(SourceError, match=r"^t: "):
        writer.partitions("t")


def test_a_stop_ends_the_wait_for_partitions(writer: SourceWriter) -> None:
    writer._producer = Producer(KafkaError._TRANSPORT)
    writer._stop.set()
    with pytest.raises(Stopped):
        writer.partitions("t")


def test_letters_that_cannot_be_read_end_the_run_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def end_of(bootstrap: str, topic: str, partition: int) -> int:
        raise CommittedLogError(f"{topic}[{partition}]: Local: Timed out")

    at = dict.fromkeys(dead_letters.ALL_REASONS, 7)
    monkeypatch.setattr(SourceWriter, "open", lambda _: Position(next=at))
    monkeypatch.setattr(dead_letters, "end_of", end_of)
    with pytest.raises(SourceError, match=r"Timed out\. The letters before 7 are done"):
        dead_letters.replay(from_tree({}), stop=threading.Event())

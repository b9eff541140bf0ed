"""The owner of a partition: queue, pace, second tries. Its Partition does what it is told."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException

from rheos.settings import StreamSettings
from stream.chunk import Chunk
from stream.partition import ChunkMissing, InputLost, Partition
from stream.runner import Input, Runner
from tests.stream.kafka_log import Entry


def failure(code: int = KafkaError._INCONSISTENT) -> KafkaException:
    return KafkaException(KafkaError(code))


def chunk(first: int, count: int = 1, size: int = 10) -> Chunk:
    records = [Entry(first + n, 0, b"key", b"x" * size) for n in range(count)]
    return Chunk(first, records, first + count)


class Stub:
    """Stands for every Partition of a runner: one log, one checkpoint, planned failures."""

    place = "topic[0]"

    def __init__(self) -> None:
        self.next_offset = 0
        self.log: list[int] = []
        self.batches: list[int] = []
        self.opened = 0
        self.dropped = 0
        self.fail_open: list[BaseException] = []
        self.fail_apply: list[BaseException] = []
        self.fail_commit: list[BaseException] = []
        self.gate = threading.Event()
        self.gate.set()
        self._pending: list[int] = []
        self._pending_next = 0

    def open(self) -> None:
        self.opened += 1
        if self.fail_open:
            raise self.fail_open.pop(0)

    def apply(self, chunks: Sequence[Chunk]) -> None:
        if self.fail_apply:
            raise self.fail_apply.pop(0)
        records = [entry for part in chunks for entry in part.records]
        self._pending = [entry.offset for entry in records if entry.offset >= self.next_offset]
        self._pending_next = chunks[-1].next_offset

    def commit(self) -> None:
        self.gate.wait(60)
        if self.fail_commit:
            raise self.fail_commit.pop(0)
        self.log += self._pending
        self.batches.append(len(self._pending))
        self.next_offset = self._pending_next

    def drop(self) -> None:
        self.dropped += 1


class Rig(SimpleNamespace):
    stub: Stub
    runner: Runner
    begun: list[int]
    reading: int
    held: list[str]
    crashed: list[BaseException]
    acked: list[int]

    def start(self) -> None:
        """Starts the runner and waits until reading has begun: nothing comes before."""
        self.runner.start()
        until(lambda: bool(self.begun))

    def begin(self, offset: int, reading: int) -> None:
        self.reading = reading
        self.begun.append(offset)

    def put(self, part: Chunk) -> None:
        part = part._replace(reading=self.reading)
        self.runner.put(part, lambda: self.acked.append(part.next_offset))


@pytest.fixture
def make_rig() -> Iterator[Callable[..., Rig]]:
    rigs: list[Rig] = []

    def make(interval_s: float = 0.0, **settings: Any) -> Rig:
        stub = Stub()
        rig = Rig(stub=stub, begun=[], held=[], crashed=[], acked=[], reading=0)

        def new_partition(stopping: threading.Event) -> Partition:
            return stub  # type: ignore[return-value]

        rig.runner = Runner(
            "chain",
            interval_s,
            StreamSettings(**settings),
            new_partition,
            Input(
                begin=rig.begin,
                hold=lambda: rig.held.append("hold"),
                release=lambda: rig.held.append("release"),
                crash=rig.crashed.append,
            ),
        )
        rigs.append(rig)
        return rig

    yield make
    for rig in rigs:
        rig.stub.gate.set()
        rig.runner.stop()
        if rig.runner.ident is not None:
            rig.runner.join(60)
            assert not rig.runner.is_alive()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_it_opens_before_it_is_given_anything_and_begins_at_the_checkpoint(
    make_rig: Callable[..., Rig],
) -> None:
    rig = make_rig()
    rig.stub.next_offset = 42
    rig.runner.start()
    until(lambda: rig.begun == [42])
    assert rig.runner.next_offset == 42


def test_chunks_are_acknowledged_in_order_and_only_once_they_are_committed(
    make_rig: Callable[..., Rig],
) -> None:
    rig = make_rig()
    rig.stub.gate.clear()
    rig.start()
    for first in (0, 3, 6):
        rig.put(chunk(first, 3))
    time.sleep(0.1)
    assert rig.acked == []
    rig.stub.gate.set()
    until(lambda: rig.acked == [3, 6, 9])
    assert rig.stub.log == list(range(9))


def test_what_queues_up_during_a_commit_goes_into_the_next_one_together(
    make_rig: Callable[..., Rig],
) -> None:
    rig = make_rig(batch_records=25)
    rig.stub.gate.clear()
    rig.start()
    rig.put(chunk(0))
    until(lambda: rig.runner.next_offset is not None and rig.stub._pending == [0])
    for first in range(1, 61, 10):
        rig.put(chunk(first, 10))
    rig.stub.gate.set()
    until(lambda: len(rig.acked) == 7)
    assert rig.stub.batches == [1, 20, 20, 20]  # two chunks of ten fit below 25


def test_a_chunk_larger_than_a_batch_is_taken_all_the_same(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(batch_records=5)
    rig.start()
    rig.put(chunk(0, 40))
    until(lambda: rig.acked == [40])


def test_commits_keep_their_least_interval(
    make_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = make_rig(interval_s=600)
    is_over = threading.Event()
    waits: list[float] = []
    monkeypatch.setattr(
        rig.runner._stopping, "wait", lambda s: waits.append(s) or (s > 0 and is_over.wait(60))
    )
    rig.start()
    rig.put(chunk(0))
    until(lambda: len(rig.acked) == 1)
    assert len(waits) == 1
    assert waits[0] <= 0  # at once when idle
    rig.put(chunk(1))
    until(lambda: len(waits) == 2)
    assert 0 < waits[1] <= 600
    rig.put(chunk(2))
    assert rig.acked == [1]
    is_over.set()
    until(lambda: len(rig.acked) == 3)
    assert rig.stub.batches == [1, 2]


def test_a_failed_commit_is_dropped_and_its_chunks_are_given_again(
    make_rig: Callable[..., Rig],
) -> None:
    rig = make_rig()
    rig.stub.fail_commit = [failure(), failure()]
    rig.start()
    for first in range(5):
        rig.put(chunk(first))
    until(lambda: len(rig.acked) == 5)
    assert rig.stub.log == list(range(5))
    assert rig.stub.opened == 3
    assert rig.stub.dropped == 2
    assert rig.begun == [0]  # it goes on from the queue: nothing is read twice


def test_a_commit_of_unknown_outcome_that_did_happen_is_not_repeated(
    make_rig: Callable[..., Rig],
) -> None:
    rig = make_rig()
    rig.runner.start()
    until(lambda: rig.runner.next_offset == 0)
    commit = rig.stub.commit

    def commit_and_lose_the_answer() -> None:
        commit()
        rig.stub.commit = commit  # type: ignore[method-assign]
        raise failure(KafkaError._TIMED_OUT)

    rig.stub.commit = commit_and_lose_the_answer  # type: ignore[method-assign]
    rig.put(chunk(0, 4))
    until(lambda: rig.acked == [4])
    assert rig.stub.log == [0, 1, 2, 3]


def test_opening_is_tried_until_the_broker_is_there(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    rig.stub.fail_open = [failure(KafkaError._TRANSPORT)] * 3
    rig.runner.start()
    until(lambda: rig.begun == [0])
    assert rig.stub.opened == 4


def test_after_fencing_it_waits_a_session_before_it_opens_again(
    make_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = make_rig(session_timeout_s=7)
    rig.stub.fail_commit = [failure(KafkaError._FENCED)]
    waited: list[float] = []
    wait = rig.runner._stopping.wait
    monkeypatch.setattr(
        rig.runner._stopping, "wait", lambda s: waited.append(s) or (s < 1 and wait(s))
    )
    rig.start()
    rig.put(chunk(0))
    until(lambda: rig.acked == [1])
    assert 7 in waited


def test_a_fenced_partition_that_is_revoked_meanwhile_is_left_to_its_owner(
    make_rig: Callable[..., Rig],
) -> None:
    rig = make_rig(session_timeout_s=7)
    rig.stub.fail_commit = [failure(KafkaError._FENCED)]
    rig.start()
    rig.put(chunk(0))
    until(lambda: rig.stub.dropped == 1)
    rig.runner.stop()
    rig.runner.join(5)
    assert not rig.runner.is_alive()
    assert rig.stub.opened == 1
    assert rig.acked == []


@pytest.mark.parametrize("limit", [{"queue_records": 100}, {"queue_bytes": 1000}])
def test_a_full_queue_holds_the_input_until_it_is_half_empty(
    make_rig: Callable[..., Rig], limit: dict[str, int]
) -> None:
    rig = make_rig(batch_records=10, **limit)
    rig.stub.gate.clear()
    rig.start()
    for first in range(0, 100, 10):
        rig.put(chunk(first, 10))
    assert rig.held == []
    rig.put(chunk(100, 10))
    rig.put(chunk(110, 10))
    assert rig.held == ["hold"]
    rig.stub.gate.set()
    until(lambda: len(rig.acked) == 12)
    assert rig.held == ["hold", "release"]


def test_a_lost_input_stops_this_partition_and_says_why(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    rig.stub.fail_open = [InputLost("topic[0]: cut; set stream.accept_loss = true")]
    rig.runner.start()
    until(lambda: rig.runner.problem is not None)
    assert "accept_loss" in str(rig.runner.problem)
    assert rig.begun == []
    assert rig.crashed == []


def test_an_input_cut_while_running_is_found_after_the_queue_is_done(
    make_rig: Callable[..., Rig],
) -> None:
    rig = make_rig()
    rig.stub.gate.clear()
    rig.start()
    rig.put(chunk(0, 3))
    rig.runner.reopen()
    rig.stub.fail_open = [InputLost("cut")]
    rig.stub.gate.set()
    until(lambda: rig.runner.problem == "cut")
    assert rig.acked == [3]


def test_an_error_that_nobody_foresaw_ends_the_worker(
    make_rig: Callable[..., Rig], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threading, "excepthook", lambda arguments: None)
    rig = make_rig()
    rig.stub.fail_commit = [ZeroDivisionError("a bug")]
    rig.start()
    rig.put(chunk(0))
    until(lambda: bool(rig.crashed))
    assert isinstance(rig.crashed[0], ZeroDivisionError)
    assert rig.acked == []


def test_a_chunk_that_never_came_has_the_log_read_again_from_the_checkpoint(
    make_rig: Callable[..., Rig],
) -> None:
    rig = make_rig()
    rig.start()
    rig.put(chunk(0, 2))
    until(lambda: rig.acked == [2])
    rig.stub.fail_apply = [ChunkMissing("2 to 5")]
    rig.put(chunk(5, 2))
    until(lambda: rig.begun == [0, 2])
    rig.put(chunk(2, 5))
    until(lambda: rig.acked == [2, 7])
    assert rig.stub.log == list(range(7))


def test_a_queue_that_is_read_again_is_bounded_as_before(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(batch_records=10, queue_records=100)
    rig.stub.gate.clear()
    rig.start()
    rig.put(chunk(0, 10))
    until(lambda: rig.stub._pending_next == 10)
    rig.put(chunk(20, 101))
    assert rig.held == ["hold"]
    rig.stub.fail_apply = [ChunkMissing("10 to 20")]
    open_partition, opening = rig.stub.open, threading.Event()

    def open_slowly() -> None:
        opening.wait(60)
        open_partition()

    rig.stub.open = open_slowly  # type: ignore[method-assign]
    rig.stub.gate.set()
    until(lambda: not rig.runner._queue)
    rig.put(chunk(121, 101))  # of the reading that is given up
    assert not rig.runner._queue
    rig.stub.gate.clear()
    opening.set()
    until(lambda: rig.begun == [0, 10])
    rig.put(chunk(10, 101))
    assert rig.held == ["hold", "hold"]
    rig.stub.gate.set()
    until(lambda: rig.acked == [10, 111])
    assert rig.stub.log == list(range(111))


def test_what_was_on_its_way_before_reading_began_is_ignored(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    rig.stub.next_offset = 10
    rig.put(chunk(4, 3))
    rig.start()
    rig.runner.put(chunk(30, 5)._replace(reading=rig.reading - 1), lambda: rig.acked.append(-1))
    rig.put(chunk(10, 3))
    until(lambda: rig.acked == [13])
    assert rig.stub.log == [10, 11, 12]

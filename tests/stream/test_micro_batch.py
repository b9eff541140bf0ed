"""What the micro-batch consumer takes from Faust and aiokafka, and how it behaves."""

import asyncio
import hashlib
import inspect
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.fetcher import Fetcher, FetchResult
from aiokafka.consumer.subscription_state import TopicPartitionState
from aiokafka.errors import NoOffsetForPartitionError, OffsetOutOfRangeError
from faust.app.base import App
from faust.tables.recovery import Recovery
from faust.transport.consumer import Consumer, ThreadDelegateConsumer
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread
from faust.transport.drivers.aiokafka import Consumer as AIOKafkaDriver
from faust.types import TP

from stream.chunk import Chunk
from stream.micro_batch import CommittedReader, MicroBatchConsumer, install
from tests.stream.kafka_log import Entry

ADR = Path(__file__).resolve().parents[2] / "docs" / "adr" / "0001-micro-batch-consumer.md"

RELIED_ON = {
    Consumer.getmany: "4b168d84",
    Consumer._wait_next_records: "6218e196",
    Consumer._drain_messages: "44a25003",
    Consumer._new_offset: "1d2c7ea8",
    Consumer._reset_state: "488b46f5",
    Consumer._get_active_partitions: "b24897f3",
    Consumer._filter_committable_offsets: "dc5e9baf",
    Consumer._should_commit: "5ce94179",
    Consumer.ack: "5fcf41cf",
    Consumer.perform_seek: "0e8c130f",
    Consumer.pause_partitions: "27a1c94b",
    Consumer.resume_partitions: "afe6b7c0",
    Consumer.resume_flow: "db59630f",
    Consumer.on_partitions_revoked: "d04b7ae7",
    Consumer.on_partitions_assigned: "29ce9659",
    Consumer.verify_event_path: "aead7dc3",
    ThreadDelegateConsumer._getmany: "f9d47aa9",
    AIOKafkaDriver._new_consumer_thread: "0870ec53",
    AIOKafkaDriver._to_message: "7c24f651",
    AIOKafkaConsumerThread._create_worker_consumer: "c2701bfc",
    AIOKafkaConsumerThread._commit: "932852ce",
    AIOKafkaConsumerThread._fetch_records: "39a2c6c7",
    AIOKafkaConsumerThread.__post_init__: "913dc7c0",
    AIOKafkaConsumer.seek: "a9430f1f",
    AIOKafkaConsumerThread.highwater: "6f7dbe10",
    App._on_partitions_assigned: "de932b79",
    App._on_partitions_revoked: "d5c895bb",
    Recovery.on_recovery_completed: "6ef567ac",
    AIOKafkaConsumer.start: "2f1ba704",
    Fetcher.fetched_records: "be434889",
    FetchResult.getall: "3e717e30",
    TopicPartitionState: "2b83334a",
}
"""Members that are overridden or counted on, with the hash of the text that was read and tried."""


@pytest.mark.parametrize("member", RELIED_ON, ids=lambda member: member.__qualname__)
def test_what_is_overridden_or_counted_on_is_as_it_was_read(member: Any) -> None:
    text = inspect.getsource(member)
    found = hashlib.sha256(text.encode()).hexdigest()[:8]
    assert found == RELIED_ON[member], (
        f"{member.__module__}.{member.__qualname__} changed. Read it beside {ADR.name}, run"
        f" tests/integration/test_stream_*.py, then write {found!r} here."
    )


def test_every_override_is_explained() -> None:
    explained = ADR.read_text("utf-8")
    for name, value in vars(MicroBatchConsumer).items():
        if inspect.isfunction(value) and hasattr(AIOKafkaDriver, name):
            assert f"`{name}`" in explained, name


PARTITION = TP("topic", 0)
OTHER = TP("topic", 1)


class FakeThread:
    """Stands for the thread with aiokafka in it."""

    def __init__(self) -> None:
        self.begun: list[tuple[TP, int, int]] = []
        self.fetches: list[Any] = []
        self.asked: list[tuple[set[TP], float]] = []

    def highwater(self, partition: TP) -> int:
        return 100

    async def getmany(self, active: set[TP], timeout: float) -> Any:
        self.asked.append((set(active), timeout))
        fetched = self.fetches.pop(0) if self.fetches else {}
        if isinstance(fetched, Exception):
            raise fetched
        return fetched

    async def begin(self, partition: TP, offset: int, reading: int) -> None:
        self.begun.append((partition, offset, reading))


@pytest.fixture
def cut() -> list[TP]:
    return []


@pytest.fixture
def consumer(cut: list[TP]) -> MicroBatchConsumer:
    """The consumer without an app around it: what getmany touches, no more."""
    made = MicroBatchConsumer.__new__(MicroBatchConsumer)
    made.app = SimpleNamespace(
        consumer_generation_id=1,
        monitor=SimpleNamespace(track_tp_end_offset=lambda partition, offset: None),
    )
    made.chunk_records = 3
    made.on_cut = cut.append
    made._thread = FakeThread()
    made._active_partitions = set()
    made._paused_partitions = set()
    made._committed_offset = {}
    made._acked = {PARTITION: []}
    made._acked_index = {PARTITION: set()}
    made.can_resume_flow = asyncio.Event()
    made.suspend_flow = asyncio.Event()
    made.not_waiting_next_records = asyncio.Event()
    made._reset_state()
    made.resume_flow()

    async def wait(event: asyncio.Event, timeout: float | None = None) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(event.wait(), timeout)

    made.wait = wait
    type(made).should_stop = False
    return made


async def chunks(consumer: MicroBatchConsumer) -> list[tuple[TP, Chunk]]:
    return [(tp, message.value) async for tp, message in consumer.getmany(0.1)]


def entries(first: int, count: int) -> list[Entry]:
    return [Entry(first + n, 0, None, b"x") for n in range(count)]


class FakeConsumer:
    """aiokafka's consumer as far as its thread asks it."""

    def __init__(self, positions: dict[TP, int]) -> None:
        self.positions = positions
        assignment = SimpleNamespace(tps=positions, state_value=self._state)
        self._subscription = SimpleNamespace(subscription=SimpleNamespace(assignment=assignment))

    def _state(self, partition: TP) -> SimpleNamespace:
        position = self.positions[partition]
        return SimpleNamespace(position=position, has_valid_position=position >= 0)

    def seek(self, partition: TP, offset: int) -> None:
        self.positions[partition] = offset


class Thread:
    """CommittedReader over a FakeConsumer; ``fetch`` takes records and moves positions."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reader = CommittedReader.__new__(CommittedReader)
        self.reader._read_to = {}
        self.consumer = FakeConsumer({PARTITION: 77, OTHER: -1})
        self.reader._consumer = self.consumer
        self.records: dict[TP, list[Entry]] = {}

        async def fetched(*arguments: Any, **options: Any) -> dict[TP, list[Entry]]:
            return self.records

        monkeypatch.setattr(AIOKafkaConsumerThread, "_fetch_records", fetched)

    async def fetch(self, positions: dict[TP, int], **records: list[Entry]) -> dict[TP, Chunk]:
        self.consumer.positions.update(positions)
        self.records = {PARTITION: records["here"]} if "here" in records else {}
        return await self.reader._fetch_records(self.consumer, {PARTITION, OTHER})


@pytest.fixture
async def thread(monkeypatch: pytest.MonkeyPatch) -> Thread:
    made = Thread(monkeypatch)
    await made.reader._begin(PARTITION, 10, 1)
    await made.reader._begin(OTHER, 0, 1)
    return made


async def test_chunks_join_markers_or_not_and_whoever_else_has_records(thread: Thread) -> None:
    here = entries(10, 3)
    assert await thread.fetch({PARTITION: 14}, here=here) == {PARTITION: Chunk(10, here, 14, 1)}
    assert await thread.fetch({}) == {}
    assert await thread.fetch({OTHER: 2}) == {OTHER: Chunk(0, (), 2, 1)}
    more = entries(14, 1)
    assert await thread.fetch({PARTITION: 15, OTHER: 4}, here=more) == {
        PARTITION: Chunk(14, more, 15, 1),
        OTHER: Chunk(2, (), 4, 1),
    }


async def test_a_reading_that_begins_anew_goes_back_and_is_told_from_the_one_before(
    thread: Thread,
) -> None:
    await thread.fetch({PARTITION: 13}, here=entries(10, 3))
    await thread.reader._begin(PARTITION, 11, 2)
    again = entries(11, 2)
    assert await thread.fetch({PARTITION: 13}, here=again) == {PARTITION: Chunk(11, again, 13, 2)}


async def test_a_partition_that_went_elsewhere_in_the_meantime_gives_nothing(
    thread: Thread,
) -> None:
    del thread.consumer.positions[PARTITION]
    assert await thread.fetch({}) == {}


async def test_a_fetch_is_cut_into_chunks_that_join(consumer: MicroBatchConsumer) -> None:
    await consumer.begin(PARTITION, 10, 4)
    await consumer.begin(OTHER, 0, 5)
    jump = Chunk(0, (), 6, 5)
    consumer._thread.fetches = [{PARTITION: Chunk(10, entries(10, 7), 20, 4), OTHER: jump}]
    found = await chunks(consumer)
    assert [(tp, c.begin, [r.offset for r in c.records], c.next_offset) for tp, c in found] == [
        (PARTITION, 10, [10, 11, 12], 13),
        (PARTITION, 13, [13, 14, 15], 16),
        (PARTITION, 16, [16], 20),
        (OTHER, 0, [], 6),
    ]
    assert {chunk.reading for tp, chunk in found if tp == PARTITION} == {4}


async def test_nothing_is_read_of_a_partition_before_it_is_begun(
    consumer: MicroBatchConsumer,
) -> None:
    consumer.resume_partitions({PARTITION, OTHER})  # as Faust does after a rebalance
    assert await chunks(consumer) == []
    assert consumer._thread.asked == []
    await consumer.begin(OTHER, 3, 1)
    await chunks(consumer)
    assert consumer._thread.asked[0][0] == {OTHER}


async def test_reading_begins_only_after_a_rebalance_has_ended(
    consumer: MicroBatchConsumer,
) -> None:
    consumer.stop_flow()
    beginning = asyncio.create_task(consumer.begin(PARTITION, 3, 1))
    await asyncio.sleep(0.01)
    assert consumer._thread.begun == []
    consumer.resume_flow()
    await beginning
    assert consumer._thread.begun == [(PARTITION, 3, 1)]


async def test_a_held_partition_is_not_fetched_until_it_is_released(
    consumer: MicroBatchConsumer,
) -> None:
    await consumer.begin(PARTITION, 0, 1)
    await consumer.begin(OTHER, 0, 1)
    consumer.hold(PARTITION)
    await chunks(consumer)
    consumer.release(PARTITION)
    await chunks(consumer)
    assert [active for active, _ in consumer._thread.asked] == [{OTHER}, {PARTITION, OTHER}]
    assert consumer._thread.asked[0][1] < consumer._thread.asked[1][1]


async def test_lag_is_what_lies_above_the_checkpoint(consumer: MicroBatchConsumer) -> None:
    assert consumer.lag(PARTITION, 93) == 7
    assert consumer.lag(PARTITION, 100) == 0


async def test_an_offset_that_the_broker_lacks_is_told_and_not_skipped(
    consumer: MicroBatchConsumer, cut: list[TP]
) -> None:
    await consumer.begin(PARTITION, 0, 1)
    consumer._thread.fetches = [OffsetOutOfRangeError({PARTITION: 0})]
    assert await chunks(consumer) == []
    assert cut == [PARTITION]
    assert await chunks(consumer) == []
    assert len(consumer._thread.asked) == 1  # held from then on


async def test_that_the_group_has_no_offset_of_a_partition_that_came_back_is_no_error(
    consumer: MicroBatchConsumer, cut: list[TP]
) -> None:
    await consumer.begin(PARTITION, 0, 1)
    consumer._thread.fetches = [
        NoOffsetForPartitionError(PARTITION),
        {PARTITION: Chunk(0, entries(0, 2), 2, 1)},
    ]
    assert await chunks(consumer) == []
    assert cut == []
    assert len(await chunks(consumer)) == 1


async def test_a_rebalance_in_the_middle_of_a_fetch_hands_on_nothing_more(
    consumer: MicroBatchConsumer,
) -> None:
    await consumer.begin(PARTITION, 0, 1)
    consumer._thread.fetches = [{PARTITION: Chunk(0, entries(0, 9), 9, 1)}]
    found = []
    async for _, message in consumer.getmany(0.1):
        found.append(message.value.next_offset)
        consumer.stop_flow()
    assert found == [3]


async def test_a_fetch_that_waited_through_a_rebalance_is_of_the_new_generation(
    consumer: MicroBatchConsumer,
) -> None:
    await consumer.begin(PARTITION, 0, 1)

    async def getmany(active: set[TP], timeout: float) -> dict[TP, Chunk]:
        consumer.app.consumer_generation_id = 2
        return {PARTITION: Chunk(0, entries(0, 1), 1, 2)}

    consumer._thread.getmany = getmany
    found = [message async for _, message in consumer.getmany(0.1)]
    assert [(message.generation_id, message.value.reading) for message in found] == [(2, 2)]


async def test_the_group_offset_follows_the_last_acknowledged_chunk(
    consumer: MicroBatchConsumer,
) -> None:
    assert consumer._new_offset(PARTITION) is None
    consumer._acked[PARTITION] = [12, 15, 16]
    consumer._acked_index[PARTITION] = {12, 15, 16}
    assert consumer._new_offset(PARTITION) == 17
    assert consumer._new_offset(PARTITION) is None


async def test_a_state_that_is_built_anew_may_begin_below_the_groups_offset(
    consumer: MicroBatchConsumer,
) -> None:
    consumer._committed_offset[PARTITION] = 500
    consumer._read_offset[PARTITION] = 500
    await consumer.begin(PARTITION, 0, 1)
    assert consumer._committed_offset.get(PARTITION) is None
    assert consumer._read_offset[PARTITION] is None  # else Faust drops all below 500


def test_install_is_for_one_app_only() -> None:
    def app() -> SimpleNamespace:
        return SimpleNamespace(transport=SimpleNamespace(Consumer=None))

    one, two = app(), app()
    install(one, 10, lambda partition: None)
    install(two, 20, lambda partition: None)
    assert (one.transport.Consumer.chunk_records, two.transport.Consumer.chunk_records) == (10, 20)
    assert MicroBatchConsumer.__annotations__["chunk_records"] == "int"

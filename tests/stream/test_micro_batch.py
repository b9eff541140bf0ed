"""What the micro-batch consumer takes from Faust and aiokafka, and how it behaves."""

import asyncio
import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.consumer.fetcher import Fetcher, FetchResult
from aiokafka.consumer.subscription_state import TopicPartitionState
from aiokafka.errors import OffsetOutOfRangeError
from faust.app.base import App
from faust.tables.recovery import Recovery
from faust.transport.consumer import Consumer, ThreadDelegateConsumer
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread
from faust.transport.drivers.aiokafka import Consumer as AIOKafkaDriver
from faust.types import TP

from stream.chunk import Chunk
from stream.micro_batch import MicroBatchConsumer, install
from tests.stream.kafka_log import Entry

ADR = Path(__file__).resolve().parents[2] / "docs" / "adr" / "0001-micro-batch-consumer.md"

RELIED_ON = {
    Consumer.getmany: "4b168d84",
    Consumer._wait_next_records: "6218e196",
    Consumer._drain_messages: "44a25003",
    Consumer._new_offset: "1d2c7ea8",
    Consumer._add_gap: "4df2573d",
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
    ThreadDelegateConsumer.seek_wait: "e9db5bbc",
    AIOKafkaDriver._new_consumer_thread: "0870ec53",
    AIOKafkaDriver._to_message: "7c24f651",
    AIOKafkaConsumerThread._create_worker_consumer: "c2701bfc",
    AIOKafkaConsumerThread._commit: "932852ce",
    AIOKafkaConsumerThread._fetch_records: "39a2c6c7",
    AIOKafkaConsumerThread._seek_wait: "9d221e81",
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
        self.positions: dict[TP, int] = {}
        self.jump: dict[TP, int] = {}  # what the next fetches do to positions
        self.fetches: list[Any] = []
        self.asked: list[tuple[set[TP], float]] = []

    def position_of(self, partition: TP) -> int | None:
        return self.positions.get(partition)

    def highwater(self, partition: TP) -> int:
        return 100

    async def getmany(self, active: set[TP], timeout: float) -> Any:
        self.asked.append((set(active), timeout))
        fetched = self.fetches.pop(0) if self.fetches else {}
        if isinstance(fetched, Exception):
            raise fetched
        for partition, records in fetched.items():
            self.positions[partition] = records[-1].offset + 1
        self.positions.update(self.jump)
        return fetched

    async def seek_wait(self, partitions: dict[TP, int]) -> None:
        self.positions.update(partitions)


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
    made._read_offset = {}
    made._committed_offset = {}
    made._acked = {PARTITION: []}
    made._acked_index = {PARTITION: set()}
    made.can_resume_flow = asyncio.Event()
    made.suspend_flow = asyncio.Event()
    made.not_waiting_next_records = asyncio.Event()
    made._reset_state()
    made.resume_flow()

    async def wait(event: asyncio.Event, timeout: float | None = None) -> None:
        try:
            await asyncio.wait_for(event.wait(), timeout)
        except TimeoutError:
            return

    made.wait = wait
    type(made).should_stop = False
    return made


async def chunks(consumer: MicroBatchConsumer) -> list[tuple[TP, Chunk]]:
    return [(tp, message.value) async for tp, message in consumer.getmany(0.1)]


def entries(first: int, count: int) -> list[Entry]:
    return [Entry(first + n, 0, None, b"x") for n in range(count)]


async def test_records_come_in_chunks_of_one_partition_with_the_offset_that_follows(
    consumer: MicroBatchConsumer,
) -> None:
    await consumer.begin(PARTITION, 10)
    await consumer.begin(OTHER, 0)
    consumer._thread.fetches = [{PARTITION: entries(10, 7), OTHER: entries(5, 1)}]
    found = await chunks(consumer)
    assert [(tp, c.begin, [r.offset for r in c.records], c.next_offset) for tp, c in found] == [
        (PARTITION, 10, [10, 11, 12], 13),
        (PARTITION, 13, [13, 14, 15], 16),
        (PARTITION, 16, [16], 17),
        (OTHER, 0, [5], 6),
    ]


async def test_a_fetch_whose_records_went_astray_shows_in_where_the_next_one_begins(
    consumer: MicroBatchConsumer,
) -> None:
    await consumer.begin(PARTITION, 10)
    consumer._thread.positions[PARTITION] = 14  # somebody took 10 to 13
    consumer._thread.fetches = [{PARTITION: entries(14, 1)}]
    ((_, found),) = await chunks(consumer)
    assert found.begin == 14


async def test_nothing_is_read_of_a_partition_before_it_is_begun(
    consumer: MicroBatchConsumer,
) -> None:
    consumer.resume_partitions({PARTITION, OTHER})  # as Faust does after a rebalance
    assert await chunks(consumer) == []
    assert consumer._thread.asked == []
    await consumer.begin(OTHER, 3)
    await chunks(consumer)
    assert consumer._thread.asked[0][0] == {OTHER}


async def test_a_held_partition_is_not_fetched_until_it_is_released(
    consumer: MicroBatchConsumer,
) -> None:
    await consumer.begin(PARTITION, 0)
    await consumer.begin(OTHER, 0)
    consumer.hold(PARTITION)
    await chunks(consumer)
    consumer.release(PARTITION)
    await chunks(consumer)
    assert [active for active, _ in consumer._thread.asked] == [{OTHER}, {PARTITION, OTHER}]
    assert consumer._thread.asked[0][1] < consumer._thread.asked[1][1]


async def test_a_log_that_goes_on_without_records_gives_an_empty_chunk_once(
    consumer: MicroBatchConsumer,
) -> None:
    await consumer.begin(PARTITION, 4)
    assert await chunks(consumer) == []
    consumer._thread.jump = {PARTITION: 6}  # past two markers
    assert await chunks(consumer) == [(PARTITION, Chunk(4, (), 6))]
    assert await chunks(consumer) == []


async def test_chunks_join_where_a_log_goes_on_while_another_has_records(
    consumer: MicroBatchConsumer,
) -> None:
    await consumer.begin(PARTITION, 4)
    await consumer.begin(OTHER, 0)
    records = entries(0, 2)
    consumer._thread.fetches = [{OTHER: records}]
    consumer._thread.jump = {PARTITION: 6, OTHER: 3}  # past two markers, and one behind records
    assert await chunks(consumer) == [
        (OTHER, Chunk(0, records, 3)),
        (PARTITION, Chunk(4, (), 6)),
    ]
    more = entries(6, 1)
    consumer._thread.jump = {}
    consumer._thread.fetches = [{PARTITION: more}]
    assert await chunks(consumer) == [(PARTITION, Chunk(6, more, 7))]


async def test_lag_counts_positions_and_markers_at_the_end_are_none(
    consumer: MicroBatchConsumer,
) -> None:
    await consumer.begin(PARTITION, 90)
    consumer._thread.fetches = [{PARTITION: entries(90, 9)}]
    consumer._thread.jump = {PARTITION: 100}  # 99 is a marker
    *_, (_, last) = await chunks(consumer)
    assert last.next_offset == 100
    assert consumer.lag(PARTITION, 93) == 7
    assert consumer.lag(PARTITION, 100) == 0


async def test_markers_between_two_fetches_leave_no_gap_between_chunks(
    consumer: MicroBatchConsumer,
) -> None:
    await consumer.begin(PARTITION, 0)
    consumer._thread.fetches = [{PARTITION: entries(0, 4)}, {PARTITION: entries(5, 1)}]
    consumer._thread.jump = {PARTITION: 5}  # 4 is a marker
    first = await chunks(consumer)
    consumer._thread.jump = {}
    second = await chunks(consumer)
    ends = [chunk.next_offset for _, chunk in first + second]
    assert [chunk.begin for _, chunk in first + second] == [0, *ends[:-1]]
    assert ends == [3, 5, 6]


async def test_an_offset_that_the_broker_lacks_is_told_and_not_skipped(
    consumer: MicroBatchConsumer, cut: list[TP]
) -> None:
    await consumer.begin(PARTITION, 0)
    consumer._thread.fetches = [OffsetOutOfRangeError({PARTITION: 0})]
    assert await chunks(consumer) == []
    assert cut == [PARTITION]
    assert await chunks(consumer) == []
    assert len(consumer._thread.asked) == 1  # held from then on


@pytest.mark.parametrize(
    "change",
    [
        lambda consumer: consumer.stop_flow(),
        lambda consumer: setattr(consumer.app, "consumer_generation_id", 2),
    ],
)
async def test_a_rebalance_in_the_middle_of_a_fetch_hands_on_nothing_more(
    consumer: MicroBatchConsumer, change: Callable[[MicroBatchConsumer], None]
) -> None:
    await consumer.begin(PARTITION, 0)
    consumer._thread.fetches = [{PARTITION: entries(0, 9)}]
    found = []
    async for _, message in consumer.getmany(0.1):
        found.append(message.value.next_offset)
        change(consumer)
    assert found == [3]


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
    await consumer.begin(PARTITION, 0)
    consumer._thread.fetches = [{PARTITION: entries(0, 2)}]
    assert [c.next_offset for _, c in await chunks(consumer)] == [2]
    assert consumer._committed_offset.get(PARTITION) is None
    assert consumer._read_offset.get(PARTITION) in (None, 0)


def test_install_is_for_one_app_only() -> None:
    def app() -> SimpleNamespace:
        return SimpleNamespace(transport=SimpleNamespace(Consumer=None))

    one, two = app(), app()
    install(one, 10, lambda partition: None)
    install(two, 20, lambda partition: None)
    assert (one.transport.Consumer.chunk_records, two.transport.Consumer.chunk_records) == (10, 20)
    assert MicroBatchConsumer.__annotations__["chunk_records"] == "int"

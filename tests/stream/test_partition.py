"""One partition, one writer, one transaction: killed and failed at each numbered step."""

import gc
import random
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import KafkaError, KafkaException, Producer

from rheos.local_kafka import KafkaProcess
from rheos.settings import Settings
from rheos.state import (
    CHECKPOINT_KEY,
    Checkpoint,
    decode_checkpoint,
    decode_dead_letter,
    encode_state,
)
from stream import partition as partition_module
from stream.chunk import Chunk
from stream.cluster import Cluster
from stream.partition import Abandoned, ChunkMissing, InputLost, Partition, is_fenced
from stream.store import MemoryStore
from tests.stream.chain import (
    POISON,
    chain_agent,
    chain_of,
    chain_settings,
    chain_topics,
    decode_link,
)
from tests.stream.kafka_log import (
    Entry,
    cut_topic,
    delete_topic,
    latest,
    make_topics,
    read,
    send,
)
from tests.stream.partition_process import FaultyPartition, chunk_of, feed

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.kafka


@pytest.fixture
def chain(broker: KafkaProcess, prefix: str) -> "Chain":
    make_topics(broker.bootstrap, chain_topics(prefix))
    return Chain(broker.bootstrap, prefix)


class Chain:
    """The CRC chain over a topic of one partition."""

    def __init__(self, bootstrap: str, prefix: str) -> None:
        self.bootstrap, self.prefix = bootstrap, prefix
        self.input = f"{prefix}.in"
        self.random = random.Random(7)

    def settings(self, **stream: object) -> Settings:
        return chain_settings(self.bootstrap, self.prefix, **stream)

    def partition(
        self,
        store: MemoryStore | None = None,
        kind: type[Partition] = Partition,
        stopping: threading.Event | None = None,
        **stream: object,
    ) -> Partition:
        settings = self.settings(**stream)
        return kind(
            settings,
            chain_agent(settings),
            0,
            MemoryStore() if store is None else store,  # an empty one is false
            Cluster(self.bootstrap),
            stopping or threading.Event(),
        )

    def send(self, count: int) -> None:
        send(
            self.bootstrap,
            self.input,
            [
                (b"key%d" % self.random.randrange(9), b"%d" % self.random.randrange(1 << 30))
                for _ in range(count)
            ],
        )

    def run(self, partition: Partition) -> Partition:
        partition.open()
        feed(partition, self.bootstrap, self.input)
        return partition

    def states(self) -> dict[str, object]:
        values = latest(read(self.bootstrap, f"{self.prefix}.state"))
        return {key: decode_link(value) for key, value in values.items()}

    def check(self) -> None:
        """States and outputs are those of each record of the input exactly once, in order."""
        log = read(self.bootstrap, self.input)
        assert self.states() == chain_of(log)
        (sent,) = read(self.bootstrap, f"{self.prefix}.out")
        assert [(entry.key, entry.value) for entry in sent] == [
            (entry.key, entry.value) for entry in log[0] if entry.value != POISON
        ]


@pytest.fixture(scope="module")
def processes() -> Iterator[subprocess.Popen[str]]:
    """Forks processes that die at a step: tests/stream/partition_process.py."""
    with subprocess.Popen(
        [sys.executable, "-m", "tests.stream.partition_process"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


@pytest.mark.parametrize("step", FaultyPartition.steps)
def test_killed_at_any_step_the_next_owner_goes_on_exactly_there(
    chain: Chain, step: str, processes: subprocess.Popen[str]
) -> None:
    assert processes.stdin is not None
    assert processes.stdout is not None
    chain.send(90)
    when = 3 if step[0] in "234" else 1
    for place, expected in ((step, -signal.SIGKILL), ("none", 0)):
        print(chain.bootstrap, chain.prefix, when, place, file=processes.stdin, flush=True)
        assert int(processes.stdout.readline()) == expected
    chain.check()


class Failure(Exception):
    pass


class FailingPartition(FaultyPartition):
    at = ""

    def fault(self, step: str) -> None:
        if step == self.at:
            self.at = ""
            raise Failure


@pytest.mark.parametrize("step", FaultyPartition.steps)
def test_failed_at_any_step_it_is_dropped_and_opened_anew_in_the_same_process(
    chain: Chain, step: str
) -> None:
    chain.send(90)
    store = MemoryStore()
    first = chain.partition(store, FailingPartition)
    first.at = step
    with pytest.raises(Failure):
        chain.run(first)
    first.drop()
    chain.run(chain.partition(store))
    chain.check()


def test_a_paused_owner_that_wakes_up_is_fenced_and_does_no_harm(chain: Chain) -> None:
    chain.send(50)
    sleeper = chain.partition()
    sleeper.open()
    (entries,) = read(chain.bootstrap, chain.input)
    sleeper.apply([chunk_of(entries, 0)])
    chain.run(chain.partition())  # it sleeps; another one does the work
    with pytest.raises(KafkaException) as caught:
        sleeper.commit()
    assert is_fenced(caught.value)
    sleeper.drop()
    chain.send(10)
    chain.run(chain.partition())
    chain.check()


def test_the_open_transaction_of_a_paused_owner_is_settled_and_hides_no_checkpoint(
    chain: Chain,
) -> None:
    chain.send(60)
    chain.run(chain.partition())
    chain.send(10)

    class Stuck(Partition):
        def _finish(self) -> None:
            self._writer.flush(60)

    stuck = chain.partition(kind=Stuck)
    stuck.open()
    entries = read(chain.bootstrap, chain.input)[0][60:]
    stuck.apply([chunk_of(entries, 60)])
    stuck._send(stuck._batch)
    stuck._finish()  # sent, never committed
    next_one = chain.partition()
    next_one.open()
    assert next_one.next_offset == 60
    feed(next_one, chain.bootstrap, chain.input)
    chain.check()


def test_a_store_that_was_left_behind_is_caught_up_from_where_it_stands(chain: Chain) -> None:
    store = MemoryStore()
    chain.send(30)
    chain.run(chain.partition(store))
    position = store.position
    chain.send(30)
    chain.run(chain.partition())  # elsewhere meanwhile
    chain.send(30)
    partition = chain.partition(store)
    seen: list[int] = []
    keep_read = partition._keep_read
    partition._keep_read = lambda messages, at: seen.append(at) or keep_read(messages, at)  # type: ignore[method-assign,func-returns-value]
    chain.run(partition)
    assert seen[0] == position
    chain.check()


@pytest.mark.parametrize("how", ["made again and longer", "made again and shorter", "cut off"])
def test_a_store_of_another_log_is_forgotten_and_the_state_read_anew(
    chain: Chain, how: str
) -> None:
    topic = f"{chain.prefix}.state"
    store = MemoryStore()
    chain.send(30)
    chain.run(chain.partition(store))
    if how == "cut off":  # an unclean leader has lost the end
        store.put({"lost": b"state"}, store.position + 5)
    else:
        delete_topic(chain.bootstrap, topic)
        make_topics(chain.bootstrap, {topic: 1})
        store.put({"old": b"state"}, 1 if how == "made again and longer" else 9999)
    if how == "made again and longer":
        chain.run(chain.partition())
    chain.run(chain.partition(store))
    assert store.get("old") is store.get("lost") is None
    chain.send(20)
    chain.run(chain.partition(store))
    assert chain.states() == chain_of(read(chain.bootstrap, chain.input))
    assert all(decode_link(store.get(key)) == link for key, link in chain.states().items())


def test_a_dropped_partition_with_an_unsent_checkpoint_is_freed(chain: Chain) -> None:
    """Its states are many, and a broker that comes and goes makes it drop again and again."""
    chain.send(10)
    partition = chain.partition()
    partition.open()
    (entries,) = read(chain.bootstrap, chain.input)
    partition.apply([chunk_of(entries, 0)])
    partition._send(partition._batch)
    partition.drop()
    gone = weakref.ref(partition)
    del partition
    gc.collect()
    assert gone() is None


def test_the_same_chunk_twice_counts_once(chain: Chain) -> None:
    chain.send(40)
    partition = chain.partition()
    partition.open()
    (entries,) = read(chain.bootstrap, chain.input)
    for part in (entries[:30], entries[:30], entries[10:40], entries):
        partition.apply([chunk_of(part, part[0].offset)])
        partition.commit()
    chain.check()


def test_chunks_of_one_batch_that_overlap_count_once(chain: Chain) -> None:
    chain.send(40)
    partition = chain.partition()
    partition.open()
    (entries,) = read(chain.bootstrap, chain.input)
    parts = (entries[:30], entries[10:35], entries[5:20], entries[30:40], entries)
    partition.apply([chunk_of(part, part[0].offset) for part in parts])
    partition.commit()
    chain.check()


def test_a_chunk_that_does_not_join_on_is_told_and_nothing_is_folded(chain: Chain) -> None:
    chain.send(40)
    partition = chain.partition()
    partition.open()
    (entries,) = read(chain.bootstrap, chain.input)
    with pytest.raises(ChunkMissing, match="nothing came from 10 to 20"):
        partition.apply([chunk_of(entries[:10], 0), chunk_of(entries[20:], 20)])
    assert partition.next_offset == 0
    partition.commit()
    assert chain.states() == {}


def test_aborted_records_and_markers_in_the_input_are_holes_not_losses(chain: Chain) -> None:
    producer = Producer({"bootstrap.servers": chain.bootstrap, "transactional.id": chain.prefix})
    producer.init_transactions(60)
    for number in range(6):
        producer.begin_transaction()
        producer.produce(chain.input, b"%d" % number, b"key", partition=0)
        if number % 2:
            producer.flush(60)
            producer.abort_transaction(60)
        else:
            producer.commit_transaction(60)
    partition = chain.run(chain.partition())
    assert partition.next_offset == 9  # 0 marker 2 marker 4 marker 6 marker 8 ...
    chain.check()
    chain.run(chain.partition())
    chain.check()


@pytest.mark.parametrize("at", [0, 1, 13, 39])
def test_a_record_that_the_fold_fails_on_becomes_a_dead_letter_alone(chain: Chain, at: int) -> None:
    chain.send(at)
    send(chain.bootstrap, chain.input, [(b"key3", POISON)])
    chain.send(40 - at)
    partition = chain.partition()
    partition.open()
    (entries,) = read(chain.bootstrap, chain.input)
    partition.apply([chunk_of(entries, 0)])
    partition.commit()
    chain.check()
    ((letter,),) = read(chain.bootstrap, f"{chain.prefix}.dead-letters")
    assert letter.value is not None
    told = decode_dead_letter(letter.value)
    assert (told.reason, told.offset, told.value) == ("failed", at, POISON)
    assert "ZeroDivisionError: a record that nobody foresaw" in told.text


def test_a_record_that_would_make_a_state_too_large_to_write_is_a_dead_letter(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(chain.bootstrap, chain.input, [(b"a", b"1"), (b"b", b"x" * 900), (b"a", b"2")])
    monkeypatch.setattr(partition_module, "MAX_RECORD_BYTES", 800)
    chain.run(chain.partition())
    states = chain.states()
    assert set(states) == {"a"}
    ((letter,),) = read(chain.bootstrap, f"{chain.prefix}.dead-letters")
    assert letter.value is not None
    assert decode_dead_letter(letter.value).offset == 1


def test_an_input_that_retention_cut_stops_the_partition_and_says_what_is_lost(
    chain: Chain,
) -> None:
    chain.send(30)
    chain.run(chain.partition())
    chain.send(50)
    cut_topic(chain.bootstrap, chain.input, 0, 45)
    with pytest.raises(InputLost) as caught:
        chain.partition().open()
    text = str(caught.value)
    assert f"{chain.input}[0]" in text
    assert "from 30 to 44, at most 15 records" in text
    assert "stream.accept_loss = true" in text
    accepting = chain.run(chain.partition(accept_loss=True))
    assert accepting.next_offset == 80
    chain.run(chain.partition())  # and is accepted once and for all
    assert sum(link.count for link in chain.states().values()) == 30 + 35  # type: ignore[attr-defined]


def test_a_cut_below_the_checkpoint_is_no_loss(chain: Chain) -> None:
    chain.send(30)
    chain.run(chain.partition())
    cut_topic(chain.bootstrap, chain.input, 0, 30)
    chain.send(5)
    assert chain.run(chain.partition()).next_offset == 35


def test_an_input_topic_that_was_made_anew_stops_the_partition(chain: Chain) -> None:
    chain.send(30)
    chain.run(chain.partition())
    delete_topic(chain.bootstrap, chain.input)
    make_topics(chain.bootstrap, {chain.input: 1})
    chain.send(40)
    with pytest.raises(InputLost, match=r"deleted and created again.*accept_loss"):
        chain.partition().open()
    accepting = chain.run(chain.partition(accept_loss=True))
    assert accepting.next_offset == 40
    assert sum(link.count for link in chain.states().values()) == 70  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("found", "told"),
    [
        ({"partitions": 3}, "had 3 partitions and has 1"),
        ({"next_offset": 31}, "now ends at offset 30, below what was folded"),
    ],
)
def test_another_partition_count_or_a_shorter_log_stops_the_partition(
    chain: Chain, found: dict[str, int], told: str
) -> None:
    chain.send(30)
    chain.run(chain.partition())
    checkpoint = chain_checkpoint(chain)
    fields = {
        "next_offset": checkpoint.next_offset,
        "topic_id": checkpoint.topic_id,
        "partitions": checkpoint.partitions,
        **found,
    }
    value = encode_state(Checkpoint(**fields))  # type: ignore[arg-type]
    send(chain.bootstrap, f"{chain.prefix}.state", [(CHECKPOINT_KEY, value)])
    with pytest.raises(InputLost, match=told):
        chain.partition().open()
    partition = chain.partition(accept_loss=True)
    partition.open()
    assert partition.next_offset == 30


def chain_checkpoint(chain: Chain) -> Checkpoint:
    (entries,) = read(chain.bootstrap, f"{chain.prefix}.state")
    value = [entry.value for entry in entries if entry.key == CHECKPOINT_KEY][-1]
    assert value is not None
    return decode_checkpoint(value)


def test_a_state_that_changed_often_is_written_once_a_transaction(chain: Chain) -> None:
    chain.send(200)
    partition = chain.partition()
    partition.open()
    (entries,) = read(chain.bootstrap, chain.input)
    partition.apply([chunk_of(entries, 0)])
    partition.commit()
    (written,) = read(chain.bootstrap, f"{chain.prefix}.state")
    assert len(written) == 9 + 1  # nine keys and the checkpoint


def test_a_chunk_without_records_moves_the_checkpoint_alone(chain: Chain) -> None:
    chain.send(3)
    partition = chain.run(chain.partition())
    partition.apply([Chunk(3, (), 10)])
    partition.commit()
    assert chain_checkpoint(chain).next_offset == 10


def test_a_forgotten_key_is_gone_from_store_and_topic(chain: Chain) -> None:
    chain.send(30)
    store = MemoryStore()
    partition = chain.run(chain.partition(store))
    partition._fold = lambda records, state_of: partition_module.Changes({"key1": None})
    partition.apply([chunk_of([Entry(30, 0, b"key1", b"forget")], 30)])
    partition.commit()
    assert "key1" not in chain.states()
    assert store.get("key1") is None
    assert partition._state_of("key1") is None


@pytest.mark.slow
def test_while_the_broker_is_away_it_waits_and_ends_at_once_when_told(
    broker: KafkaProcess, chain: Chain
) -> None:
    chain.send(30)
    stopping = threading.Event()
    partition = chain.partition(stopping=stopping)
    partition.open()
    (entries,) = read(chain.bootstrap, chain.input)
    partition.apply([chunk_of(entries, 0)])
    broker.kill()
    caught: list[BaseException] = []

    def commit() -> None:
        try:
            partition.commit()
        except (KafkaException, Abandoned) as error:
            caught.append(error)

    thread = threading.Thread(target=commit)
    thread.start()
    thread.join(2)
    assert thread.is_alive()
    stopping.set()
    thread.join(2)
    assert not thread.is_alive()
    assert isinstance(caught[0], Abandoned)
    partition.drop()
    broker.start()
    chain.run(chain.partition())
    chain.check()


def test_only_fencing_counts_as_fencing() -> None:
    assert is_fenced(KafkaException(KafkaError(KafkaError._FENCED)))
    assert is_fenced(KafkaException(KafkaError(KafkaError.INVALID_PRODUCER_EPOCH)))
    assert not is_fenced(KafkaException(KafkaError(KafkaError._INCONSISTENT)))
    assert not is_fenced(KafkaException(KafkaError(KafkaError._TIMED_OUT)))

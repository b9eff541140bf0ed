"""Processes that open one Partition and feed it its whole input, dying at a named step.

``python -m tests.stream.partition_process`` reads lines ``BOOTSTRAP PREFIX WHEN STEP``, forks a
process for each, which kills itself when it is at the step for the WHENth time, and answers with
its exit status. STEP is one of ``FaultyPartition.steps``, or ``none``.
"""

import os
import signal
import sys
import threading
from collections.abc import Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaError, TopicPartition

from stream.chunk import Chunk
from stream.cluster import Cluster
from stream.partition import Partition
from stream.store import MemoryStore
from tests.stream.chain import chain_agent, chain_settings
from tests.stream.kafka_log import Entry

CHUNK = 20


class FaultyPartition(Partition):
    """Calls ``fault`` at each numbered step of stream/partition.py."""

    steps = (
        "1 before open",
        "1.1 fenced",
        "1.3 caught up",
        "1.4 opened",
        "2 applied",
        "3 begun",
        "3.1 states sent",
        "3.2 outputs sent",
        "3.3 all sent, not committed",
        "3 committed, not kept",
        "4 kept",
    )

    def fault(self, step: str) -> None:
        raise NotImplementedError

    def open(self) -> None:
        self.fault("1 before open")
        super().open()
        self.fault("1.4 opened")

    def _fence_earlier_owners(self) -> None:
        super()._fence_earlier_owners()
        self.fault("1.1 fenced")

    def _catch_up(self, state: Any) -> None:
        super()._catch_up(state)
        self.fault("1.3 caught up")

    def apply(self, chunks: Sequence[Chunk]) -> None:
        super().apply(chunks)
        self.fault("2 applied")

    def _send(self, batch: Any) -> None:
        self._produced: set[str] = set()
        super()._send(batch)

    def _produce(self, topic: str, partition: int, key: Any, value: Any, **options: Any) -> None:
        if not self._produced:
            self.fault("3 begun")
        state = topic == self._agent.state_topic
        kind = "3.3" if options else "3.1" if state else "3.2"
        if kind != "3.1" and not self._produced & {"3.2", "3.3"}:
            self._sent("3.1 states sent")
        if kind == "3.3":
            self._sent("3.2 outputs sent")
        self._produced.add(kind)
        super()._produce(topic, partition, key, value, **options)

    def _finish(self) -> None:
        self._sent("3.3 all sent, not committed")
        super()._finish()
        self.fault("3 committed, not kept")

    def _keep(self, batch: Any) -> None:
        super()._keep(batch)
        self.fault("4 kept")

    def _sent(self, step: str) -> None:
        assert self._producer is not None
        self._producer.flush(60)  # so that the broker really has it
        self.fault(step)


class DyingPartition(FaultyPartition):
    at = "none"
    when = 1
    seen = 0

    def fault(self, step: str) -> None:
        if step == self.at:
            DyingPartition.seen += 1
            if DyingPartition.seen == self.when:
                os.kill(os.getpid(), signal.SIGKILL)


def main(bootstrap: str, prefix: str, fault: str, when: str) -> None:
    DyingPartition.at, DyingPartition.when = fault, int(when)
    settings = chain_settings(bootstrap, prefix)
    agent = chain_agent(settings)
    partition = DyingPartition(
        settings, agent, 0, MemoryStore(), Cluster(bootstrap), threading.Event()
    )
    partition.open()
    feed(partition, bootstrap, agent.input_topic)


def feed(partition: Partition, bootstrap: str, topic: str) -> None:
    """Applies and commits the input from the checkpoint to its end, ``CHUNK`` records at a time."""
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "feed",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 10,
        }
    )
    consumer.assign([TopicPartition(topic, 0, partition.next_offset)])
    while True:
        entries = []
        ended = False
        for message in consumer.consume(CHUNK, 0.05):
            if message.error() is None:
                entries.append(
                    Entry(message.offset(), message.timestamp()[1], message.key(), message.value())
                )
            else:
                assert message.error().code() == KafkaError._PARTITION_EOF
                ended = True
        if entries:
            partition.apply([chunk_of(entries, partition.next_offset)])
            partition.commit()
        if ended:
            break
    consumer.close()


def serve() -> None:
    for line in sys.stdin:
        bootstrap, prefix, when, step = line.rstrip("\n").split(" ", 3)
        child = os.fork()  # before any Kafka client has a thread in this process
        if child == 0:
            main(bootstrap, prefix, step, when)
            sys.stderr.flush()
            os._exit(0)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def chunk_of(entries: Sequence[Entry], begin: int) -> Chunk:
    return Chunk(begin, entries, entries[-1].offset + 1)


if __name__ == "__main__":
    serve()

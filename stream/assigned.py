"""The partitions that this worker owns now: a runner for each, and the stores that outlive them."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from aiokafka.errors import KafkaError
from faust.types import TP, EventT

from rheos import metrics
from rheos.settings import Settings
from stream.agent import Agent
from stream.cluster import Cluster
from stream.micro_batch import MicroBatchConsumer
from stream.partition import Partition
from stream.runner import Input, Runner
from stream.store import MemoryStore

GIVE_UP_AFTER_S = 2.0
"""A rebalance and a stop wait so long for commits in progress; nothing depends on their end."""

STORE_KEPT_S = 3600.0
"""A store of a partition that went elsewhere is kept so long. Compaction removes a tombstone after
``delete.retention.ms``, a day by default: a store older than that would miss who was forgotten."""

_log = logging.getLogger(__name__)


class AssignedPartitions:
    """Called by the event loop only, but for what it gives to its runners.

    ``consumer`` returns Faust's consumer once the app runs; ``crash`` ends the worker.
    """

    def __init__(
        self,
        settings: Settings,
        agents: Sequence[Agent],
        consumer: Callable[[], MicroBatchConsumer],
        crash: Callable[[BaseException], None],
    ) -> None:
        self._settings = settings
        self._agents = {agent.input_topic: agent for agent in agents}
        self._consumer = consumer
        self._crash = crash
        self._runners: dict[TP, Runner] = {}
        self._stores: dict[TP, MemoryStore] = {}
        self._given_up_at: dict[TP, float] = {}
        self._cluster: Cluster | None = None
        self._assigned_once = False
        self._measured: set[TP] = set()

    def deliver(self, event: EventT[Any]) -> None:
        """Hands a chunk to its partition; it is acknowledged when it is committed."""
        runner = self._runners.get(event.message.tp)
        if runner is not None:  # else it went elsewhere while this event was on its way
            runner.put(event.value, event.ack)

    def assign(self, partitions: Iterable[TP]) -> None:
        """Starts a runner for each partition of ours among these."""
        self._forget_old_stores()
        self._assigned_once = True
        for partition in partitions:
            if partition.topic in self._agents and partition not in self._runners:
                runner = self._new_runner(partition, self._agents[partition.topic])
                self._runners[partition] = runner
                runner.start()

    async def revoke(self, partitions: Iterable[TP]) -> None:
        """Stops the runners and waits for commits in progress, up to ``GIVE_UP_AFTER_S``."""
        ended = {
            partition: self._runners.pop(partition)
            for partition in partitions
            if partition in self._runners
        }
        for runner in ended.values():
            runner.stop()
        await asyncio.to_thread(_join, list(ended.values()), GIVE_UP_AFTER_S)
        for partition, runner in ended.items():
            self._given_up_at[partition] = time.monotonic()
            if runner.is_alive():  # it may still write to its store: leave that to it
                self._stores.pop(partition, None)

    async def close(self) -> None:
        """Stops all runners."""
        await self.revoke(list(self._runners))

    def cut(self, partition: TP) -> None:
        """The broker does not have the offset that is to be read next of a partition."""
        if partition in self._runners:
            self._runners[partition].reopen()

    def not_ready(self) -> str | None:
        """Why this worker does not do all of its work yet, or None."""
        if not self._assigned_once:
            return "no partitions assigned yet"
        problems = [runner.problem for runner in self._runners.values() if runner.problem]
        if problems:
            return "; ".join(problems)
        closed = [
            f"{partition.topic}[{partition.partition}]"
            for partition, runner in self._runners.items()
            if runner.next_offset is None
        ]
        return f"not open yet: {', '.join(sorted(closed))}" if closed else None

    def measure_lag(self) -> None:
        """Sets the lag of each open partition, and removes those of partitions that went."""
        measured: set[TP] = set()
        for partition, runner in self._runners.items():
            next_offset = runner.next_offset
            if next_offset is not None:
                lag = self._consumer().lag(partition, next_offset)
                metrics.LAG_MESSAGES.labels(partition.topic, str(partition.partition)).set(lag)
                measured.add(partition)
        for partition in self._measured - measured:
            metrics.LAG_MESSAGES.remove(partition.topic, str(partition.partition))
        self._measured = measured

    def _new_runner(self, partition: TP, agent: Agent) -> Runner:
        loop = asyncio.get_running_loop()
        store = self._stores.setdefault(partition, MemoryStore())
        self._given_up_at.pop(partition, None)
        if self._cluster is None:
            self._cluster = Cluster(self._settings.kafka.bootstrap)
        cluster = self._cluster
        consumer = self._consumer()

        def new_partition(stopping: threading.Event) -> Partition:
            return Partition(self._settings, agent, partition.partition, store, cluster, stopping)

        async def begin(offset: int, reading: int) -> None:
            await consumer.can_resume_flow.wait()
            if self._runners.get(partition) is not runner:
                return  # one more rebalance came: its runner begins for itself
            try:
                await consumer.begin(partition, offset, reading)
            except KafkaError as error:  # revoked in the meantime
                _log.info("%s[%d] was not begun: %s", *partition, error)

        def from_thread(call: Callable[..., object], *arguments: object) -> None:
            loop.call_soon_threadsafe(call, *arguments)

        runner = Runner(
            agent.name,
            agent.interval_s,
            self._settings.stream,
            new_partition,
            Input(
                begin=lambda offset, reading: from_thread(
                    lambda: loop.create_task(begin(offset, reading))
                ),
                hold=lambda: from_thread(consumer.hold, partition),
                release=lambda: from_thread(consumer.release, partition),
                crash=lambda error: from_thread(self._crash, error),
            ),
        )
        return runner

    def _forget_old_stores(self) -> None:
        now = time.monotonic()
        for partition, since in list(self._given_up_at.items()):
            if now - since > STORE_KEPT_S:
                self._stores.pop(partition, None)
                del self._given_up_at[partition]


def _join(runners: Sequence[Runner], timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    for runner in runners:
        runner.join(max(0.0, deadline - time.monotonic()))

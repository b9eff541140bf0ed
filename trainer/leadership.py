"""Which of several trainers works: the member of a consumer group that holds its one partition.

The group is ``<prefix>.trainer``, the partition that of ``rheos.generations``; nothing is read or
committed in it. A trainer that dies loses it after SESSION_S, one that stops at once, and the
broker gives it to one that waits. No lock: one that is cut off may go on for a while, and then its
announcement is held up by ``publish``, which wants the generation serving that it was judged
against.
"""

import math
import time
from typing import Self

from kafka import KafkaConsumer
from kafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from kafka.structs import MemberState

from rheos import metrics
from rheos.settings import Settings
from rheos.topics import Topics

SESSION_S = 10
HOLD_S = 5.0
"""Who loses the partition leads for so long still: each rebalance takes it away for a moment."""
JOIN_S = 1.0
"""A call waits so long for the group to settle: kafka-python 3.0 throws away what a join was given
that ends between two polls, and joins again, which the others answer by doing the same."""
REJOIN_S = 20.0
"""Who waits joins anew so often; who holds the partition keeps it then. kafka-python 3.0 forgets to
take up what it was given where metadata changed meanwhile, and nobody holds the partition then."""
_MOST_SILENT_S = 300  # between two calls of `leads`


class Leadership:
    """A member of the group. One thread, which calls ``leads`` again and again. Close it, or use
    ``with``; raises KafkaError.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._held = -math.inf
        self._join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._consumer.close()
        metrics.TRAINER_LEADS.set(0)

    def leads(self) -> bool:
        """Whether this is the trainer that works. Takes part in the group's life: call it often.
        Returns within moments, and within JOIN_S while the group is settling.
        """
        self._consumer.poll(timeout_ms=20)
        give_up = time.monotonic() + JOIN_S
        while not self._is_settled() and time.monotonic() < give_up:
            self._consumer.poll(timeout_ms=100)
        now = time.monotonic()
        # A member that has fallen out of its group still has its last assignment.
        if self._is_settled() and self._consumer.assignment():
            self._held = now
        leads = now - self._held < HOLD_S
        if not leads and now - max(self._joined, self._held) >= REJOIN_S:
            self._consumer.close()
            self._join()
        metrics.TRAINER_LEADS.set(leads)
        return leads

    def _is_settled(self) -> bool:
        return bool(self._consumer.group_metadata().state == MemberState.STABLE)

    def _join(self) -> None:
        self._joined = time.monotonic()
        topic = Topics(self._settings).generations
        self._consumer = KafkaConsumer(
            topic,
            bootstrap_servers=self._settings.kafka.bootstrap.split(","),
            group_id=f"{self._settings.kafka.prefix}.trainer",
            # Who has it keeps it when another one joins: a fit is not to be thrown away.
            partition_assignment_strategy=[StickyPartitionAssignor],
            session_timeout_ms=SESSION_S * 1000,
            heartbeat_interval_ms=SESSION_S * 1000 // 3,
            max_poll_interval_ms=_MOST_SILENT_S * 1000,
            enable_auto_commit=False,
            auto_offset_reset="latest",
        )
        # Known before the group is joined: metadata that comes while it joins is what REJOIN_S
        # tells of.
        self._consumer.partitions_for_topic(topic)

"""The thread that owns a partition while it is assigned: its queue, its pace, its second tries."""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import count
from typing import NamedTuple

from confluent_kafka import KafkaException

from rheos import metrics
from rheos.settings import StreamSettings
from stream.chunk import Chunk
from stream.partition import Abandoned, ChunkMissing, InputLost, Partition, is_fenced

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0

_readings = count(1)

_log = logging.getLogger(__name__)


class Input(NamedTuple):
    """What a runner asks of the consumer. Each may be called from any thread and returns at once.

    ``begin`` starts reading at an offset, in chunks marked with a number; ``hold`` and ``release``
    stop and resume it; ``crash`` ends the worker because of an error that nobody foresaw.
    """

    begin: Callable[[int, int], None]
    hold: Callable[[], None]
    release: Callable[[], None]
    crash: Callable[[BaseException], None]


class _Queued(NamedTuple):
    chunk: Chunk
    acknowledge: Callable[[], object]
    size_bytes: int


class Runner(threading.Thread):
    """Opens a partition, then commits all that is queued again and again, until ``stop``.

    A chunk stays queued until it is committed, and is acknowledged then; so whatever fails, the
    next Partition is given the same chunks again. Failures are tried again without end, after a
    pause: a full session time-out when another owner fenced this one, for if both believe that
    the partition is theirs they must not fence each other in turn.
    """

    def __init__(
        self,
        agent: str,
        interval_s: float,
        settings: StreamSettings,
        new_partition: Callable[[threading.Event], Partition],
        source: Input,
    ) -> None:
        super().__init__(name=f"{agent} partition", daemon=True)
        self.problem: str | None = None
        """Why the partition is stopped for good, or None."""
        self.next_offset: int | None = None
        """The checkpoint while the partition is open, else None."""
        self._agent = agent
        self._interval_s = interval_s
        self._settings = settings
        self._new_partition = new_partition
        self._input = source
        self._stopping = threading.Event()
        self._changed = threading.Condition()
        self._queue: deque[_Queued] = deque()
        self._records = 0
        self._bytes = 0
        self._held = False
        self._must_begin = True
        self._reading = -1  # marks the chunks that are wanted
        self._pause_s = _FIRST_PAUSE_S
        self._last_commit = 0.0

    # called by the event loop

    def put(self, chunk: Chunk, acknowledge: Callable[[], object]) -> None:
        """Queues a chunk; ``acknowledge`` is called, in this thread, once it is committed."""
        size = sum(len(record.value or b"") for record in chunk.records)
        with self._changed:
            if chunk.reading != self._reading:
                return  # on its way since before reading began where this partition wants it
            self._queue.append(_Queued(chunk, acknowledge, size))
            self._records += len(chunk.records)
            self._bytes += size
            if not self._held and (
                self._records > self._settings.queue_records
                or self._bytes > self._settings.queue_bytes
            ):
                self._held = True
                self._input.hold()
            self._changed.notify()

    def reopen(self) -> None:
        """The broker lacks the offset to read next: once the queue is empty, open anew and see."""
        with self._changed:
            self._must_begin = True
            self._changed.notify()

    def stop(self) -> None:
        """Ends soon after; a commit in progress ends first if the broker is quick."""
        self._stopping.set()
        with self._changed:
            self._changed.notify()

    # the thread

    def run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._serve()
        except Abandoned:
            pass
        except InputLost as error:
            self.problem = str(error)
            _log.error("%s", error)
            metrics.PARTITIONS_STOPPED.labels(self._agent).inc()
            self._stopping.wait()
            metrics.PARTITIONS_STOPPED.labels(self._agent).dec()
        except BaseException as error:
            self._input.crash(error)
            raise

    def _serve(self) -> None:
        """One life of a Partition, from open to the first failure."""
        partition = self._new_partition(self._stopping)
        pause_s = 0.0
        try:
            partition.open()
            with metrics.PARTITIONS_OPEN.labels(self._agent).track_inprogress():
                self.next_offset = partition.next_offset
                self._begin(partition.next_offset)
                while queued := self._wait_for_chunks():
                    self._commit(partition, queued)
        except ChunkMissing as error:
            _log.warning("%s; reading again", error)
            self._read_again()
        except KafkaException as error:
            self._tell(partition, error)
            pause_s = self._settings.session_timeout_s if is_fenced(error) else self._pause_s
            self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)
        finally:
            self.next_offset = None
            partition.drop()
        self._stopping.wait(pause_s)

    def _begin(self, offset: int) -> None:
        with self._changed:
            if not self._must_begin:
                return  # it goes on with what is queued
            self._must_begin = False
            self._reading = next(_readings)
            self._input.begin(offset, self._reading)

    def _commit(self, partition: Partition, queued: list[_Queued]) -> None:
        self._last_commit = time.monotonic()
        partition.apply([entry.chunk for entry in queued])
        partition.commit()
        self.next_offset = partition.next_offset
        self._pause_s = _FIRST_PAUSE_S
        self._forget(len(queued))
        for entry in queued:
            entry.acknowledge()

    def _wait_for_chunks(self) -> list[_Queued]:
        """All that is queued, as much as one transaction takes; empty: the partition must reopen.

        Raises Abandoned when the runner is stopped.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._queue or self._must_begin or self._stopping.is_set()
            )
        # What arrives meanwhile goes into the same transaction.
        self._stopping.wait(self._last_commit + self._interval_s - time.monotonic())
        if self._stopping.is_set():
            raise Abandoned
        taken: list[_Queued] = []
        records = 0
        with self._changed:
            for entry in self._queue:
                records += len(entry.chunk.records)
                if taken and records > self._settings.batch_records:
                    break
                taken.append(entry)
        return taken

    def _forget(self, count: int) -> None:
        with self._changed:
            for _ in range(count):
                entry = self._queue.popleft()
                self._records -= len(entry.chunk.records)
                self._bytes -= entry.size_bytes
            if (
                self._held
                and 2 * self._records < self._settings.queue_records
                and 2 * self._bytes < self._settings.queue_bytes
            ):
                self._held = False
                self._input.release()

    def _read_again(self) -> None:
        with self._changed:
            self._must_begin = True
            self._reading = -1  # until reading has begun anew, what comes is not wanted
            self._queue.clear()
            self._records = self._bytes = 0
            self._held = False  # to begin also releases

    def _tell(self, partition: Partition, error: KafkaException) -> None:
        if self.next_offset is None:
            _log.warning("%s: cannot open yet: %s", partition.place, error.args[0])
        else:
            metrics.COMMIT_FAILURES.labels(self._agent).inc()
            _log.warning("%s: a transaction failed: %s", partition.place, error.args[0])

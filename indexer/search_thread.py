"""One thread that owns an index which is not thread-safe; queries are batched before it.

GPU indexes are not thread-safe even for reads, and a GPU answers many queries at the price of one.
"""

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple, Protocol

import numpy as np

from rheos.state import Float32s, Int64s


class RawIndex(Protocol):
    """What the thread owns. Scores (B, k) descend, rows (B, k); -1 where there are fewer."""

    def search(self, queries: Float32s, k: int) -> tuple[Float32s, Int64s]: ...


class _Job(NamedTuple):
    queries: Float32s
    k: int
    answer: "Future[tuple[Float32s, Int64s]]"


class SearchThread:
    """Searches from any thread, executed by one. ``build`` runs in that thread, too.

    Raises what ``build`` raises.
    """

    def __init__(self, build: Callable[[], RawIndex], most_queries: int = 1024) -> None:
        self._most_queries = most_queries
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        built: Future[None] = Future()
        self._thread = threading.Thread(
            target=self._run, args=(build, built), name="search", daemon=True
        )
        self._thread.start()
        built.result()

    def search(self, queries: Float32s, k: int) -> tuple[Float32s, Int64s]:
        """Blocks until the thread has answered; raises what the search raised."""
        job = _Job(queries, k, Future())
        self._jobs.put(job)
        return job.answer.result()

    def close(self) -> None:
        """Ends the thread after the searches that were asked before; it frees what it owns."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self, build: Callable[[], RawIndex], built: "Future[None]") -> None:
        try:
            index = build()
        except BaseException as error:  # noqa: BLE001 - told to the thread that constructs us
            built.set_exception(error)
            return
        built.set_result(None)
        del built
        going_on = True
        while going_on:
            jobs: list[_Job] = []
            waiting = 0
            job = self._jobs.get()
            while job is not None:
                jobs.append(job)
                waiting += len(job.queries)
                if waiting >= self._most_queries or self._jobs.empty():
                    break
                job = self._jobs.get()
            going_on = job is not None
            if jobs:
                self._answer(index, jobs)

    def _answer(self, index: RawIndex, jobs: list[_Job]) -> None:
        try:
            k = max(job.k for job in jobs)
            scores, rows = index.search(np.concatenate([job.queries for job in jobs]), k)
        except Exception as error:  # noqa: BLE001 - told to each thread that waits
            for job in jobs:
                job.answer.set_exception(error)
            return
        start = 0
        for job in jobs:
            stop = start + len(job.queries)
            job.answer.set_result((scores[start:stop, : job.k], rows[start:stop, : job.k]))
            start = stop

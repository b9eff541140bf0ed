"""Whole stream workers on a real Kafka: killed, paused, joined, fenced, their broker crashed."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rheos.local_kafka import KafkaProcess
from rheos.settings import Settings
from tests.stream.loop_check import Loop
from tests.stream.worker_process import STOPS_WITHIN_S, WorkerProcess, worker_settings

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

Start = Callable[..., WorkerProcess]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def settings(broker: KafkaProcess, prefix: str, tmp_path: Path) -> Settings:
    return worker_settings(broker.bootstrap, prefix, tmp_path / "data")


@pytest.fixture
def loop(settings: Settings) -> Loop:
    return Loop(settings)


@pytest.fixture
def start(settings: Settings, tmp_path: Path) -> Iterator[Start]:
    """Starts workers of these settings; kills what is left of them."""
    workers: list[WorkerProcess] = []

    def start_one(fault: str = "", use: Settings | None = None) -> WorkerProcess:
        log = tmp_path / f"worker{len(workers)}.log"
        workers.append(WorkerProcess(use or settings, log, fault))
        return workers[-1]

    yield start_one
    for worker in workers:
        worker.wake()
        worker.kill()
        print(worker.log[-20_000:])  # pytest shows it when the test failed


def test_events_become_states_and_a_stop_is_clean_and_quick(start: Start, loop: Loop) -> None:
    worker = start()
    worker.wait_ready()
    loop.send(500)
    loop.check()
    assert worker.metric("rheos_events_accepted_total") == 500
    until(lambda: worker.metric("rheos_partitions_open") == 4)
    code, seconds = worker.terminate()
    assert code == 0, worker.log
    assert seconds < STOPS_WITHIN_S
    assert "Traceback" not in worker.log
    loop.send(100)
    start().wait_ready()
    loop.check()


@pytest.mark.parametrize(
    "fault",
    [
        "users fail 3 3.1 states sent",
        "users fail 3 3 committed, not kept",
        "items fail 3 3.3 all sent, not committed",
        "users fail 3 4 kept",
        "users fence 3 2 applied",
    ],
)
def test_a_transaction_that_fails_is_repeated_by_the_same_process(
    start: Start, loop: Loop, fault: str
) -> None:
    worker = start(fault)
    worker.wait_ready()
    for number in range(6):
        loop.send(60)
        # Each of the first is a transaction of its own; what comes after a fencing waits in turn.
        if number < 2 or "fence" not in fault:
            loop.wait_folded()
    loop.check()
    assert worker.process.poll() is None, worker.log
    assert worker.metric("rheos_commit_failures_total") == 1, worker.log


@pytest.mark.parametrize(
    "fault", ["users kill 4 3.3 all sent, not committed", "items kill 3 3 committed, not kept"]
)
def test_a_killed_worker_is_replaced_exactly(start: Start, loop: Loop, fault: str) -> None:
    worker = start(fault)
    worker.wait_ready()
    loop.send(200)
    loop.send(200)
    deadline = time.monotonic() + 120
    while worker.process.poll() is None:  # what it takes together is one transaction
        assert time.monotonic() < deadline, worker.log
        loop.send(50)
    assert worker.wait_dead() == -9
    start()
    loop.check()


def test_workers_that_join_are_killed_and_are_paused_beyond_their_session_do_no_harm(
    start: Start, loop: Loop
) -> None:
    first = start()
    first.wait_ready()
    loop.send(300)
    second = start()
    loop.send(300)
    second.wait_ready()
    loop.send(300)
    loop.wait_folded()
    until(lambda: sum(one.metric("rheos_partitions_open") for one in (first, second)) == 4)

    first.pause()
    loop.send(300)
    loop.wait_folded()  # so the second took over what the first one owned
    loop.send(100)
    first.wake()
    loop.send(300)
    loop.check()

    second.kill()
    loop.send(200)
    loop.check()
    assert first.process.poll() is None, first.log


def test_a_crash_of_the_broker_is_outlived(start: Start, loop: Loop, broker: KafkaProcess) -> None:
    worker = start()
    worker.wait_ready()
    loop.send(300)
    broker.kill()
    broker.start()
    loop.send(300)
    loop.check()
    worker.wait_ready()

"""The worker as a process on a real Kafka: it fits by itself, and nothing that a fit does harms."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from rheos import topics
from rheos.announcements import ruling
from rheos.local_kafka import KafkaProcess
from rheos.settings import Settings
from rheos.snapshot_store import LocalStore
from tests.broker import free_ports
from tests.trainer.archived import read
from tests.trainer.released import release
from tests.trainer.shop import send, settings_for, show, taste
from trainer import worker as trainer_worker
from trainer.archive import Archive
from trainer.archiver import Archiver

pytestmark = pytest.mark.kafka

STOPS_WITHIN_S = 12.0
"""Seconds on a busy machine; what a stop must not wait for takes half a minute or minutes."""

RUN = """
import sys, msgspec
from rheos.settings import Settings
from trainer import leadership, live_clicks, worker
leadership.REJOIN_S = 15.0
worker.LIVE_S, worker.FLUSH_S, live_clicks._GRACE_MS = 0.5, 0.5, 3000
sys.exit(worker.run(msgspec.json.decode(sys.argv[1], type=Settings)))
"""


class Worker:
    """The process, its log and its metrics."""

    def __init__(self, settings: Settings, log: Path) -> None:
        self.settings = settings
        self._log = log
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-c", RUN, msgspec.json.encode(settings).decode()],
                cwd=Path(__file__).parents[2],
                stderr=file,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
            )

    def log(self) -> str:
        return self._log.read_text()

    def ask(self, path: str) -> tuple[int, str]:
        url = f"http://127.0.0.1:{self.settings.trainer.port}{path}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError as error:
            return 0, str(error)

    def metric(self, name: str) -> float:
        for line in self.ask("/metrics")[1].splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[-1])
        return 0.0

    def wait_for(self, condition: Callable[[], bool], seconds: float = 120) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.1)

    def fitting(self) -> int | None:
        """The process id of the fit that is running."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        found = children.read_text().split()
        return int(found[0]) if found else None

    def stop(self) -> float:
        """SIGTERM; returns the seconds that it took to end, with status 0."""
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0, self.log()
        return time.monotonic() - began


@pytest.fixture
def settings(broker: KafkaProcess, prefix: str, tmp_path: Path) -> Settings:
    (port,) = free_ports(1)
    made = settings_for(broker.bootstrap, prefix, tmp_path, port=port, every_minutes=0.05)
    assert topics.ensure(made) == []
    return made


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[Settings], Worker]]:
    started: list[Worker] = []

    def begin(settings: Settings) -> Worker:
        started.append(Worker(settings, tmp_path / f"worker-{len(started)}.log"))
        return started[-1]

    yield begin
    for worker in started:
        worker.process.kill()
        worker.process.wait()


def slow(settings: Settings) -> Settings:
    """A fit that takes minutes."""
    parameters = {"factors": 256, "iterations": 1000, "cg_steps": 50}
    trainer = msgspec.structs.replace(settings.trainer, parameters=parameters)
    return msgspec.structs.replace(settings, trainer=trainer)


def serving(settings: Settings) -> str:
    found = ruling(settings)
    return "" if found is None else found.generation


def archived(settings: Settings) -> int:
    if not settings.archive_dir.is_dir():
        return 0
    return sum(
        len(read(Archive(settings.archive_dir, directory.name), ["offset"]).table)
        for directory in settings.archive_dir.iterdir()
    )


def test_it_fits_when_there_is_enough_and_again_when_there_is_more(
    settings: Settings, start: Callable[[Settings], Worker]
) -> None:
    worker = start(settings)
    worker.wait_for(lambda: worker.ask("/readyz")[0] == 200)
    assert worker.ask("/healthz")[0] == 200
    send(settings, taste(600))
    worker.wait_for(lambda: serving(settings) != "")
    first = serving(settings)
    send(settings, taste(400, start=600))
    worker.wait_for(lambda: serving(settings) != first)
    worker.wait_for(lambda: worker.metric('rheos_fits_total{outcome="promoted"}') >= 2)
    assert worker.metric("rheos_generation_number") >= 2
    assert worker.metric('rheos_gate_ndcg{which="candidate"}') > 0
    assert worker.stop() < STOPS_WITHIN_S
    assert archived(settings) == 1000
    # The next one goes on from there: little that is new, so no fit for an hour. (The last fit may
    # have begun when only a part of the 400 was archived.)
    trainer = msgspec.structs.replace(settings.trainer, every_minutes=60)
    again = start(msgspec.structs.replace(settings, trainer=trainer))
    again.wait_for(lambda: again.ask("/readyz")[0] == 200)
    time.sleep(4)
    assert "a fit of als begins" not in again.log()
    assert again.metric("rheos_generation_number") == worker_number(serving(settings))


def worker_number(name: str) -> int:
    return int(name.partition("-")[0])


def test_a_stop_does_not_wait_for_a_fit_and_archiving_does_not_either(
    settings: Settings, start: Callable[[Settings], Worker]
) -> None:
    worker = start(slow(settings))
    send(settings, taste(2000))
    worker.wait_for(lambda: worker.fitting() is not None)
    send(settings, taste(500, start=2000))
    worker.wait_for(lambda: archived(settings) == 2500)
    child = worker.fitting()
    assert child is not None
    assert worker.stop() < STOPS_WITHIN_S
    assert not Path(f"/proc/{child}").exists()
    assert serving(settings) == ""
    assert archived(settings) == 2500


def test_a_stop_does_not_wait_for_a_broker_that_is_away(
    settings: Settings, start: Callable[[Settings], Worker], broker: KafkaProcess
) -> None:
    worker = start(settings)
    worker.wait_for(lambda: worker.ask("/readyz")[0] == 200)
    broker.kill()
    time.sleep(1)
    try:
        assert worker.stop() < STOPS_WITHIN_S
    finally:
        broker.start()


def test_waiting_for_a_broker_costs_no_threads_and_no_files(
    tmp_path: Path, start: Callable[[Settings], Worker]
) -> None:
    port, absent = free_ports(2)
    worker = start(settings_for(f"127.0.0.1:{absent}", "tabsent", tmp_path, port=port))
    said = f"waiting for Kafka at 127.0.0.1:{absent}"
    worker.wait_for(lambda: worker.ask("/readyz") == (503, said))

    def held() -> tuple[int, int]:
        process = Path(f"/proc/{worker.process.pid}")
        return len(list((process / "fd").iterdir())), len(list((process / "task").iterdir()))

    before, attempts = held(), worker.log().count(said)
    worker.wait_for(lambda: worker.log().count(said) >= attempts + 2)
    # The thread that answered /readyz may have been among them; and a try may be under way.
    worker.wait_for(lambda: all(now <= then for now, then in zip(held(), before, strict=True)))
    assert worker.ask("/healthz")[0] == 200
    assert worker.stop() < STOPS_WITHIN_S


def test_a_killed_fit_is_counted_and_leaves_all_as_it_was(
    settings: Settings, start: Callable[[Settings], Worker]
) -> None:
    worker = start(slow(settings))
    send(settings, taste(600))
    worker.wait_for(lambda: worker.fitting() is not None)
    child = worker.fitting()
    assert child is not None
    os.kill(child, signal.SIGKILL)
    worker.wait_for(lambda: worker.metric('rheos_fits_total{outcome="failed"}') == 1)
    assert "the fitting process ended with signal 9" in worker.log()
    assert worker.ask("/readyz")[0] == 200
    assert serving(settings) == ""


def test_a_fit_dies_with_its_worker(
    settings: Settings, start: Callable[[Settings], Worker]
) -> None:
    worker = start(slow(settings))
    send(settings, taste(600))
    worker.wait_for(lambda: worker.fitting() is not None)
    child = worker.fitting()
    worker.process.kill()
    worker.process.wait()
    deadline = time.monotonic() + 30
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not Path(f"/proc/{child}").exists()
    # And the lock with it: the next worker fits at once.
    again = start(settings)
    again.wait_for(lambda: serving(settings) != "")


def test_trouble_with_the_archive_shows_and_ends_when_it_does(
    settings: Settings, start: Callable[[Settings], Worker]
) -> None:
    worker = start(settings)
    send(settings, taste(600))
    worker.wait_for(lambda: serving(settings) != "")
    worker.stop()
    file = next(settings.archive_dir.rglob("events-*.parquet"))
    position = int(file.stem.split("-")[2])
    stray = file.with_name(f"events-{position - 1:020d}-{position + 5:020d}.parquet")
    stray.write_bytes(b"")
    again = start(settings)
    again.wait_for(lambda: "overlaps" in again.ask("/readyz")[1])
    assert again.ask("/readyz")[0] == 503
    assert again.ask("/healthz")[0] == 200
    stray.unlink()
    again.wait_for(lambda: again.ask("/readyz")[0] == 200)


def test_between_fits_it_looks_for_drift(
    settings: Settings, start: Callable[[Settings], Worker]
) -> None:
    # The first fit waits for all 600: after one on a part, what follows would be events enough.
    often = {"every_minutes": 60.0, "drift_minutes": 0.03, "min_events": 600}
    trainer = msgspec.structs.replace(settings.trainer, **often)
    worker = start(msgspec.structs.replace(settings, trainer=trainer))
    send(settings, taste(600))
    worker.wait_for(lambda: serving(settings) != "")
    first = serving(settings)
    send(settings, taste(200, start=600))
    worker.wait_for(lambda: worker.metric('rheos_drift_ndcg{which="now"}') > 0)
    assert "a look for drift begins (drift)" in worker.log()
    assert worker.metric('rheos_drift_ndcg{which="at its gate"}') > 0
    assert serving(settings) == first


def test_of_two_trainers_one_fits_and_the_other_takes_over_when_it_dies(
    settings: Settings, start: Callable[[Settings], Worker], tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    elsewhere = msgspec.structs.replace(
        settings,
        data_dir=str(tmp_path / "another machine"),
        store=str(settings.store_dir),  # which the two share
        trainer=msgspec.structs.replace(settings.trainer, port=port),
    )
    first = start(settings)
    first.wait_for(lambda: first.metric("rheos_trainer_leads") == 1)
    second = start(elsewhere)
    second.wait_for(lambda: second.ask("/readyz")[0] == 200)
    send(settings, taste(600))
    first.wait_for(lambda: first.metric('rheos_fits_total{outcome="promoted"}') >= 1)
    made = serving(settings)
    # The one that waits archives all the same.
    second.wait_for(lambda: archived(elsewhere) == 600)
    assert second.metric("rheos_trainer_leads") == 0
    assert "begins" not in second.log()
    first.process.kill()
    first.process.wait()
    second.wait_for(lambda: second.metric("rheos_trainer_leads") == 1)
    send(settings, taste(600, start=600))
    second.wait_for(lambda: serving(settings) != made)
    second.wait_for(lambda: second.metric('rheos_fits_total{outcome="promoted"}') >= 1)


@pytest.mark.slow
def test_after_a_crash_of_the_broker_one_of_two_trainers_leads(
    settings: Settings,
    start: Callable[[Settings], Worker],
    tmp_path: Path,
    broker: KafkaProcess,
) -> None:
    (port,) = free_ports(1)
    elsewhere = msgspec.structs.replace(
        settings,
        data_dir=str(tmp_path / "another machine"),
        trainer=msgspec.structs.replace(settings.trainer, port=port),
    )
    workers = [start(settings), start(elsewhere)]

    def leading() -> list[float]:
        return [worker.metric("rheos_trainer_leads") for worker in workers]

    workers[0].wait_for(lambda: sum(leading()) == 1)
    broker.kill()
    broker.start()
    before, since = leading(), time.monotonic()

    def is_settled() -> bool:
        nonlocal before, since
        now = leading()
        if now != before or sum(now) != 1:
            before, since = now, time.monotonic()
        return time.monotonic() - since > 12

    workers[0].wait_for(is_settled, 240)


def test_it_rolls_back_by_itself_what_people_do_not_click(
    settings: Settings, start: Callable[[Settings], Worker]
) -> None:
    # It judges once all answers count: a look may fall between two of them.
    live = {"live_minutes": 0.02, "live_min_answers": 400, "every_minutes": 60.0}
    trainer = msgspec.structs.replace(settings.trainer, **live)
    settings = msgspec.structs.replace(settings, trainer=trainer)
    store = LocalStore(settings.store_dir)
    first, second = release(settings, store), release(settings, store)
    worker = start(settings)
    show(settings, first, 400, every=3)
    show(settings, second, 400, every=0)
    worker.wait_for(lambda: serving(settings) == first)
    worker.wait_for(lambda: worker.metric("rheos_rollbacks_total") == 1)
    assert worker.metric('rheos_live_answers{which="serving"}') == 400
    assert f"rolled back from {second}: 0.00% of 400 answers clicked" in worker.log()


def test_taking_over_reads_no_tensors_of_what_serves(settings: Settings) -> None:
    """Archiving waits for it, and a snapshot can be large."""
    trainer = msgspec.structs.replace(settings.trainer, every_minutes=60.0)
    settings = msgspec.structs.replace(settings, trainer=trainer)
    assert topics.ensure(settings) == []
    store = LocalStore(settings.store_dir)
    name = release(settings, store)
    tensors = store.path(name) / "tensors.safetensors"
    tensors.chmod(0o644)
    tensors.write_bytes(b"torn")
    with Archiver(settings) as archiver:
        schedule = trainer_worker._schedule(settings, archiver)
    # It knows that something serves, and since when: no first events are waited for.
    assert schedule.due(10_000, time.monotonic()) == "new events"


def test_a_wrong_model_stops_the_start(
    settings: Settings, start: Callable[[Settings], Worker]
) -> None:
    trainer = msgspec.structs.replace(settings.trainer, model="mystery")
    worker = start(msgspec.structs.replace(settings, trainer=trainer))
    assert worker.process.wait(120) == 1
    assert "setting trainer.model = 'mystery': known are als, " in worker.log()

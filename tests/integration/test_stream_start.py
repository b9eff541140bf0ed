"""How a stream worker starts: by both command lines, with what is wrong told in a line."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rheos import topics
from rheos.local_kafka import KafkaProcess
from rheos.metrics import MetricsServer
from rheos.topics import Topics
from tests.broker import free_ports
from tests.stream.kafka_log import make_topics
from tests.stream.loop_check import Loop
from tests.stream.worker_process import ROOT, STOPS_WITHIN_S, WorkerProcess, worker_settings

pytestmark = pytest.mark.kafka


def test_fausts_own_command_line_runs_the_same_worker(
    broker: KafkaProcess, prefix: str, tmp_path: Path
) -> None:
    (port,) = free_ports(1)
    settings = worker_settings(broker.bootstrap, prefix, tmp_path / "data", stream={"port": port})
    (tmp_path / "rheos.toml").write_text(
        f'data_dir = "{settings.data_dir}"\n'
        f'[kafka]\nbootstrap = "{broker.bootstrap}"\nprefix = "{prefix}"\n'
        "events_partitions = 2\nitems_partitions = 2\n"
        f"[stream]\nport = {port}\nsession_timeout_s = 6\nitems_interval_ms = 50\n"
    )
    log = tmp_path / "faust.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "faust", "-A", "stream.app", "worker", "-l", "warn"],
            cwd=ROOT,
            env={**os.environ, "RHEOS_CONFIG": str(tmp_path / "rheos.toml")},
            stdout=output,
            stderr=output,
        )
    try:
        loop = Loop(settings)
        assert topics.ensure(settings) == []
        loop.send(100)
        loop.check()
        process.terminate()
        assert process.wait(60) == 0, log.read_text()
    finally:
        process.kill()


def test_topics_that_are_unfit_stop_the_start_with_a_line_for_each(
    broker: KafkaProcess, prefix: str, tmp_path: Path
) -> None:
    settings = worker_settings(broker.bootstrap, prefix, tmp_path)
    make_topics(broker.bootstrap, {Topics(settings).events: 3})
    worker = WorkerProcess(settings, tmp_path / "log")
    assert worker.wait_dead() == 1
    assert f"topic {prefix}.events has 3 partitions, the settings say 2" in worker.log
    assert "message.timestamp.type=CreateTime" in worker.log
    assert "Traceback" not in worker.log


def test_a_busy_port_is_named(broker: KafkaProcess, prefix: str, tmp_path: Path) -> None:
    settings = worker_settings(broker.bootstrap, prefix, tmp_path)
    taken = MetricsServer("127.0.0.1", 0, lambda: None)
    try:
        worker = WorkerProcess(settings, tmp_path / "log", port=taken.port)
        assert worker.wait_dead() == 1
    finally:
        taken.close()
    assert f"stream.port = {taken.port}: Address already in use" in worker.log
    assert "Traceback" not in worker.log


def test_it_waits_for_a_broker_that_is_away_and_stops_meanwhile_when_told(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    worker = WorkerProcess(worker_settings(f"127.0.0.1:{port}", "away", tmp_path), tmp_path / "log")
    try:
        deadline = time.monotonic() + 120
        while "waiting for Kafka" not in worker.log:
            assert time.monotonic() < deadline, worker.log
            time.sleep(0.1)
        code, seconds = worker.terminate()
    finally:
        worker.kill()
    assert code == 0, worker.log
    assert seconds < STOPS_WITHIN_S

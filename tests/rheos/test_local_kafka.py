"""The private Kafka: fetched exactly, started, crashed, and still holding what it acknowledged."""

import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition

from rheos.local_kafka import (
    KafkaProcess,
    LocalKafka,
    LocalKafkaError,
    check_jars,
    fetch_jars,
)
from rheos.local_kafka.launch import crashed, settle
from rheos.local_kafka.lock import read_lock
from tests.broker import free_ports, new_broker


@pytest.fixture(scope="module")
def jars_dir() -> Path:
    return fetch_jars(progress=False)


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[KafkaProcess]:
    """A broker for one test alone, in a folder whose name is not plain."""
    process = new_broker(tmp_path / "dä ta")
    yield process
    process.stop()


def values_in(bootstrap: str, topic: str) -> list[bytes]:
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, isolation_level="read_committed")
    try:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        consumer.seek_to_beginning(partition)
        end = consumer.end_offsets([partition])[partition]
        values: list[bytes] = []
        while consumer.position(partition) < end:
            for records in consumer.poll(timeout_ms=500).values():
                values += [record.value for record in records]
        return values
    finally:
        consumer.close()


def test_the_lock_names_45_jars_each_once() -> None:
    jars = read_lock()
    assert len(jars) == len({jar.file_name for jar in jars}) == 45
    assert all(len(jar.sha256) == 64 and jar.size_bytes > 0 for jar in jars)


def test_a_second_fetch_touches_nothing(jars_dir: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in jars_dir.glob("*.jar")}
    started = time.monotonic()
    assert fetch_jars(progress=False) == jars_dir
    assert {path.name: path.stat().st_mtime_ns for path in jars_dir.glob("*.jar")} == before
    assert time.monotonic() - started < 20


def test_a_damaged_and_a_missing_jar_are_fetched_again(jars_dir: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(jars_dir, tmp_path / "jars")
    damaged, missing = read_lock()[-1], read_lock()[0]
    content = bytearray((copy / damaged.file_name).read_bytes())
    content[1000] ^= 1
    (copy / damaged.file_name).write_bytes(content)
    (copy / missing.file_name).unlink()
    fetch_jars(copy, progress=False)
    assert damaged.is_at(copy / damaged.file_name)
    assert missing.is_at(copy / missing.file_name)
    assert not (copy / ".partial").exists()


def test_a_folder_of_jars_is_used_as_it_is_or_refused(jars_dir: Path, tmp_path: Path) -> None:
    assert check_jars(jars_dir) == jars_dir
    copy = shutil.copytree(jars_dir, tmp_path / "jars")
    (copy / read_lock()[3].file_name).write_bytes(b"not a jar")
    with pytest.raises(LocalKafkaError, match=f"{read_lock()[3].file_name} is not the file"):
        check_jars(copy)
    (copy / read_lock()[0].file_name).unlink()
    with pytest.raises(LocalKafkaError, match=r"is missing .* 2 such jars"):
        check_jars(copy)


def test_a_fetch_without_a_network_ends_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    closed = f"http://127.0.0.1:{free_ports(1)[0]}"
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, closed)
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(LocalKafkaError, match=r"cannot fetch \S+\.jar \(.*\); without") as error:
        fetch_jars(tmp_path / "jars", progress=False)
    assert "\n" not in str(error.value)
    assert list((tmp_path / "jars").glob("*.jar")) == []


def test_a_busy_port_is_named_before_anything_is_written(jars_dir: Path, tmp_path: Path) -> None:
    port, controller_port = free_ports(2)
    with socket.create_server(("127.0.0.1", controller_port)):
        kafka = LocalKafka(tmp_path / "data", jars_dir, port, controller_port)
        with pytest.raises(LocalKafkaError, match=f"port {controller_port} on 127.0.0.1 is busy"):
            kafka.prepare()
    assert not (tmp_path / "data").exists()


def test_a_broker_that_cannot_start_tells_why(jars_dir: Path, tmp_path: Path) -> None:
    process = new_broker(tmp_path)
    process.kafka.prepare()
    (tmp_path / "log" / "meta.properties").write_text("cluster.id=\n")
    with pytest.raises(LocalKafkaError, match="Kafka ended at its start: "):
        process.start()


@pytest.mark.kafka
@pytest.mark.slow
def test_what_was_acknowledged_survives_kill_9(own_broker: KafkaProcess) -> None:
    own_broker.start()
    acknowledged: set[bytes] = set()
    producer = Producer(
        {"bootstrap.servers": own_broker.bootstrap, "enable.idempotence": True, "linger.ms": 1}
    )
    create_topic(own_broker, "kept")
    number, killed = 0, False
    while own_broker.running:  # the kill falls into the middle of the stream
        if len(acknowledged) >= 500 and not killed:
            os.kill(own_broker.pid, signal.SIGKILL)
            killed = True
        value = b"%d" % number
        producer.produce(
            "kept",
            value,
            on_delivery=lambda error, _, value=value: error or acknowledged.add(value),
        )
        number += 1
        producer.poll(0.001)
    before_the_crash = set(acknowledged)
    assert before_the_crash
    # What a killed process leaves behind must not stop the next one.
    (own_broker.kafka.data_dir / "log" / ".lock").touch()
    own_broker.start()
    assert producer.flush(60) == 0
    values = values_in(own_broker.bootstrap, "kept")
    assert before_the_crash <= set(values)
    assert sorted(values, key=int) == [b"%d" % i for i in range(number)]  # none lost, none double


def create_topic(broker: KafkaProcess, name: str) -> None:
    from kafka import KafkaAdminClient
    from kafka.admin import NewTopic

    admin = KafkaAdminClient(bootstrap_servers=broker.bootstrap)
    try:
        admin.create_topics([NewTopic(name, 1, 1)])
    finally:
        admin.close()


@pytest.mark.kafka
def test_the_run_has_one_broker_with_transactions(broker: KafkaProcess, prefix: str) -> None:
    topic = f"{prefix}.one"
    create_topic(broker, topic)
    producer = Producer({"bootstrap.servers": broker.bootstrap, "transactional.id": prefix})
    producer.init_transactions(60)
    for commit in (False, True):
        producer.begin_transaction()
        producer.produce(topic, b"committed" if commit else b"aborted")
        producer.flush(60)
        producer.commit_transaction(60) if commit else producer.abort_transaction(60)
    assert values_in(broker.bootstrap, topic) == [b"committed"]


@pytest.mark.kafka
def test_a_topic_that_nobody_created_is_not_there(broker: KafkaProcess, prefix: str) -> None:
    failures: list[object] = []
    producer = Producer({"bootstrap.servers": broker.bootstrap, "message.timeout.ms": 3000})
    producer.produce(f"{prefix}.none", b"x", on_delivery=lambda error, _: failures.append(error))
    producer.flush(60)
    assert failures[0] is not None


def test_the_controller_runs_alone_only_after_a_crash(own_broker: KafkaProcess) -> None:
    log_dir = own_broker.kafka.data_dir / "log"
    own_broker.kafka.prepare()
    assert not crashed(log_dir)
    own_broker.start()
    assert crashed(log_dir)
    own_broker.stop()
    assert not crashed(log_dir)
    assert not (own_broker.kafka.data_dir / "settling").exists()


def test_after_a_crash_it_waits_for_the_record_that_fences_and_for_no_earlier_one(
    tmp_path: Path,
) -> None:
    log = tmp_path / "log" / "__cluster_metadata-0" / "00000000000000000000.log"
    log.parent.mkdir(parents=True)
    fenced = bytes.fromhex("0111000000000100000000000000100100010118")
    unfenced = bytes.fromhex("011100000000010000000000000010010001ff")
    log.write_bytes(fenced + unfenced)
    controller = """
import sys, time
for record in sys.argv[2:]:
    with open(sys.argv[1], "ab") as log:
        log.write(bytes.fromhex(record))
    time.sleep(1)
time.sleep(600)
"""
    written = [unfenced.hex(), fenced.hex()]
    settle(
        [sys.executable, "-c", controller, str(log), *written],
        tmp_path / "log",
        tmp_path / "settling",
    )
    assert log.read_bytes() == fenced + unfenced + unfenced + fenced


def test_a_transaction_acknowledged_just_before_kill_9_is_neither_lost_nor_left_open(
    own_broker: KafkaProcess,
) -> None:
    own_broker.start()
    admin = KafkaAdminClient(bootstrap_servers=own_broker.bootstrap)
    admin.create_topics(
        {"shop": {"num_partitions": 4, "replication_factor": 1}}, wait_for_metadata=True
    )
    admin.close()
    for crash in range(3):
        producer = Producer(
            {
                "bootstrap.servers": own_broker.bootstrap,
                "transactional.id": f"writer-{crash}",
                "transaction.timeout.ms": 15_000,
                "log_level": 0,
            }
        )
        producer.init_transactions(60)
        for _ in range(3):  # the first one still makes the broker's caches
            producer.begin_transaction()
            for partition in range(4):
                producer.produce("shop", b"%d" % crash, partition=partition)
            producer.commit_transaction(60)
        own_broker.kill()  # its markers are on the way
        own_broker.start()
        del producer
        consumer = KafkaConsumer(
            bootstrap_servers=own_broker.bootstrap,
            group_id=None,
            isolation_level="read_committed",
            auto_offset_reset="earliest",
        )
        places = [TopicPartition("shop", partition) for partition in range(4)]
        consumer.assign(places)
        found, deadline = 0, time.monotonic() + 90
        while found < 12 * (crash + 1) and time.monotonic() < deadline:
            found += sum(map(len, consumer.poll(timeout_ms=500).values()))
        consumer.close()
        assert found == 12 * (crash + 1)

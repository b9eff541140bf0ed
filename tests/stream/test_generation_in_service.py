"""Which generation the stream encodes with, and what happens when a snapshot is broken."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from rheos import topics
from rheos.announcements import Announcement, announce
from rheos.local_kafka import KafkaProcess
from rheos.settings import Settings, from_tree
from rheos.snapshot import Manifest, software_versions
from rheos.snapshot_store import LocalStore
from stream import generation_in_service
from stream.generation_in_service import GenerationInService


def settings_for(tmp_path: Path, bootstrap: str = "127.0.0.1:1", prefix: str = "t") -> Settings:
    return from_tree(
        {"data_dir": str(tmp_path), "kafka": {"bootstrap": bootstrap, "prefix": prefix}}
    )


def store_generation(settings: Settings, number: int) -> str:
    random = np.random.default_rng(number)
    return LocalStore(settings.store_dir).put(
        Manifest(
            number=number,
            model="als",
            dimensions=4,
            items=3,
            interactions=9,
            created_ms=1_700_000_000_000,
            window={},
            parameters={},
            metrics={},
            encoder={"kind": "fold_in", "alpha": 20.0, "regularisation": 0.05},
            software=software_versions(),
        ),
        ["a", "b", "c"],
        {
            "item_vectors": random.normal(size=(3, 4)).astype(np.float32),
            "popularity": np.ones(3, np.float32),
        },
    )


def announcement(number: int, generation: str) -> Announcement:
    return Announcement(
        number=number, slot="serving", generation=generation, reason="test", time_ms=0
    )


def test_an_announced_generation_is_loaded(tmp_path: Path) -> None:
    settings = settings_for(tmp_path)
    name = store_generation(settings, 1)
    service = GenerationInService(settings)
    service._take(announcement(1, name))
    assert service.current is not None
    assert service.current.name == name
    same = service.current
    service._take(announcement(2, name))
    assert service.current is same


def test_a_broken_or_absent_snapshot_is_refused_and_the_old_one_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_for(tmp_path)
    good, bad = store_generation(settings, 1), store_generation(settings, 2)
    for path in (settings.store_dir / bad).iterdir():
        if path.suffix == ".safetensors":
            data = bytearray(path.read_bytes())
            data[-1] ^= 1
            path.write_bytes(data)
    service = GenerationInService(settings)
    for name in (good, bad, "9-00000000", "../../etc"):
        service._take(announcement(1, name))
        assert service.current is not None
        assert service.current.name == good
    assert f"generation {bad} refused, {good} stays in service" in caplog.text


@pytest.mark.kafka
def test_it_follows_the_topic_and_ends_when_told(
    broker: KafkaProcess, prefix: str, tmp_path: Path
) -> None:
    settings = settings_for(tmp_path, broker.bootstrap, prefix)
    assert topics.ensure(settings) == []
    names = [store_generation(settings, number) for number in (1, 2)]
    announce(settings, announcement(1, names[0]))
    service = GenerationInService(settings)
    service.start()
    try:
        for place, name in enumerate(names):
            if place:
                announce(settings, announcement(2, name))
            deadline = time.monotonic() + 60
            while service.current is None or service.current.name != name:
                assert time.monotonic() < deadline
                time.sleep(0.02)
    finally:
        service.close()
    assert not service._thread.is_alive()


@pytest.mark.parametrize("error", [MemoryError(), OSError(5, "Input/output error")])
def test_what_fails_while_a_snapshot_is_loaded_refuses_it_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    service = GenerationInService(settings_for(tmp_path))

    def get(name: str) -> None:
        raise error

    monkeypatch.setattr(service._store, "get", get)
    service._take(announcement(1, "1-00000000"))
    assert service.current is None


def test_without_a_broker_no_client_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each client that finds no broker leaves a thread and sockets behind."""
    asked = threading.Event()

    def is_reachable(bootstrap: str) -> bool:
        asked.set()
        return False

    monkeypatch.setattr(generation_in_service, "is_reachable", is_reachable)
    monkeypatch.setattr(generation_in_service, "follow", lambda *_: pytest.fail("a client"))
    service = GenerationInService(settings_for(tmp_path))
    assert service.unhealthy() is None
    service.start()
    assert asked.wait(60)
    assert service.unhealthy() is None
    service.close()


def test_a_thread_that_died_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def follow(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    monkeypatch.setattr(generation_in_service, "is_reachable", lambda _: True)
    monkeypatch.setattr(generation_in_service, "follow", follow)
    service = GenerationInService(settings_for(tmp_path))
    service.start()
    service._thread.join(60)
    assert service.unhealthy() == "the thread that follows the generations has ended"

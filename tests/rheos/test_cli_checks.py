"""The doctor's checks, each with what it must find."""

import subprocess
from pathlib import Path
from typing import Any

import pytest

from rheos.cli import checks
from rheos.local_kafka import KafkaProcess
from rheos.settings import Settings, from_tree
from rheos.topics import ensure


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Pretends that exactly these distributions are installed."""

    def pretend(*names: str) -> None:
        monkeypatch.setattr(checks, "installed", lambda name: "1.0" if name in names else None)

    return pretend


@pytest.fixture
def cards(monkeypatch: pytest.MonkeyPatch) -> Any:
    def pretend(*names: str) -> None:
        monkeypatch.setattr(checks, "_cards", lambda: list(names))

    return pretend


def test_two_builds_of_faiss_at_once_fail_with_the_way_out(installed: Any) -> None:
    installed("faiss-cpu", "faiss-gpu")

    found = checks.faiss()

    assert found.state == "fail"
    assert "faiss-cpu and faiss-gpu are installed at once" in found.text
    assert found.fix.startswith("pip uninstall -y faiss-cpu faiss-gpu;")


def test_one_build_of_faiss_is_fine_and_none_is_a_warning(installed: Any) -> None:
    installed("faiss-gpu")
    assert checks.faiss().state == "ok"
    installed()
    assert checks.faiss().state == "warn"


def test_a_part_is_missing_when_one_of_its_packages_is(installed: Any) -> None:
    installed("faust-streaming", *checks.PARTS["trainer"])

    states = {finding.check: finding for finding in checks.parts()}

    assert states["trainer"].state == "ok"
    assert states["stream"].state == "warn"
    assert "confluent-kafka" in states["stream"].text
    assert "rheos[stream]" in states["stream"].fix


def test_the_parts_are_the_extras_of_the_project() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    for part, needed in checks.PARTS.items():
        extra = " ".join(project["optional-dependencies"][part])
        assert [name for name in needed if name not in extra] == []


def test_without_a_card_everything_runs_on_the_cpu(cards: Any) -> None:
    cards()

    assert checks.gpu().state == "ok"
    assert "CPU" in checks.gpu().text


def test_a_card_beside_a_cpu_build_is_a_warning(installed: Any, cards: Any) -> None:
    cards("NVIDIA H100")
    installed("faiss-cpu")

    assert checks.gpu().state == "warn"
    assert "rheos[gpu]" in checks.gpu().fix


@pytest.mark.parametrize(
    ("printed", "state"), [("2\n", "ok"), ("0\n", "warn"), ("not a number", "fail")]
)
def test_faiss_is_asked_which_cards_it_sees(
    installed: Any, cards: Any, monkeypatch: pytest.MonkeyPatch, printed: str, state: str
) -> None:
    cards("NVIDIA H100")
    installed("faiss-gpu")
    monkeypatch.setattr(
        checks.subprocess,
        "run",
        lambda *_, **__: subprocess.CompletedProcess([], 0, stdout=printed),
    )

    assert checks.gpu().state == state


def test_a_faiss_that_crashes_is_a_failure(
    installed: Any, cards: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object, **__: object) -> None:
        raise subprocess.CalledProcessError(-11, "python")

    cards("NVIDIA H100")
    installed("faiss-gpu")
    monkeypatch.setattr(checks.subprocess, "run", crash)

    assert checks.gpu().state == "fail"


@pytest.mark.parametrize(
    ("free", "state"), [(100 << 30, "ok"), (5 << 30, "warn"), (100 << 20, "fail")]
)
def test_the_disk_of_a_folder_that_is_not_there_yet_is_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, state: str
) -> None:
    usage = type("Usage", (), {"free": free})
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda path: usage)

    found = checks.disk(tmp_path / "not" / "there")

    assert found.state == state
    assert ("RHEOS_DATA_DIR" in found.fix) == (state != "ok")


def test_a_file_in_the_place_of_the_data_folder_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    assert checks.disk(tmp_path / "file").state == "fail"


def test_an_old_python_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks.sys, "version_info", (3, 10, 1))

    assert checks.python().state == "fail"


def settings_for(bootstrap: str, prefix: str, **kafka: Any) -> Settings:
    return from_tree({"kafka": {"bootstrap": bootstrap, "prefix": prefix, **kafka}})


@pytest.mark.kafka
def test_missing_topics_are_a_warning_and_wrong_ones_a_failure(
    broker: KafkaProcess, prefix: str
) -> None:
    settings = settings_for(broker.bootstrap, prefix)
    before = list(checks.kafka(settings))
    ensure(settings)
    after = list(checks.kafka(settings))
    other = list(checks.kafka(settings_for(broker.bootstrap, prefix, events_partitions=7)))

    assert [finding.state for finding in before] == ["ok"] + ["warn"] * 10
    assert "rheos topics create" in before[1].fix
    assert [finding.state for finding in after] == ["ok", "ok"]
    failed = [finding for finding in other if finding.state == "fail"]
    assert failed
    assert all("the settings say 7" in finding.text for finding in failed)
    assert all("another prefix" in finding.fix for finding in failed)


def test_no_broker_here_is_a_warning_and_elsewhere_a_failure() -> None:
    (here,) = checks.kafka(settings_for("127.0.0.1:1", "p"))
    (elsewhere,) = checks.kafka(settings_for("kafka.invalid:9092", "p"))

    assert (here.state, elsewhere.state) == ("warn", "fail")
    assert "rheos up" in here.fix
    assert "kafka.bootstrap" in elsewhere.fix

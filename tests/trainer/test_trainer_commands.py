"""`rheos train`, `tune` and `generations` as a person calls them, on a real Kafka."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rheos.cli import main
from rheos.local_kafka import KafkaProcess
from rheos.settings import Settings
from rheos.snapshot_store import LocalStore
from tests.trainer.shop import send, settings_for, taste
from trainer.publish import withdraw

pytestmark = pytest.mark.kafka


@pytest.fixture
def settings(
    broker: KafkaProcess, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    """Settings that the commands read, from the environment."""
    made = settings_for(broker.bootstrap, prefix, tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RHEOS_DATA_DIR", made.data_dir)
    for key, value in msgspec.to_builtins(made.kafka).items():
        monkeypatch.setenv(f"RHEOS_KAFKA_{key.upper()}", str(value))
    for key in ("min_events", "gate_min_events", "threads", "gate_tolerance"):
        monkeypatch.setenv(f"RHEOS_TRAINER_{key.upper()}", str(getattr(made.trainer, key)))
    parameters = json.dumps(made.trainer.parameters)
    monkeypatch.setenv("RHEOS_TRAINER_PARAMETERS", parameters)
    send(made, taste(600))
    return made


def asked(capfd: pytest.CaptureFixture[str], *words: str) -> Any:
    """What a command prints with --json: one document and nothing else."""
    status = main([*words, "--json"])
    printed = capfd.readouterr()
    assert status == 0, printed.err
    return json.loads(printed.out)


def test_a_generations_life_by_commands(
    settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    first = asked(capfd, "train")["generation"]
    send(settings, taste(400, start=600))
    second = asked(capfd, "train")["generation"]
    assert main(["generations"]) == 0
    assert second in capfd.readouterr().out
    shown = asked(capfd, "generations", "show")
    assert (shown["generation"], shown["serving"]) == (second, True)
    assert shown["manifest"]["metrics"]["gate_p_value"] > 0
    assert f"of {first} on" in shown["announcements"][0]["reason"]
    assert Path(shown["folder"]).is_dir()
    assert main(["generations", "show", first]) == 0
    assert "als" in capfd.readouterr().out
    assert asked(capfd, "generations", "promote", first)["generation"] == first
    assert asked(capfd, "generations", "rollback")["generation"] == second
    withdraw(settings, LocalStore(settings.store_dir), second, "fewer clicks")
    assert main(["generations", "promote", second]) == 1
    assert "was withdrawn (fewer clicks); --anyway" in capfd.readouterr().err
    assert main(["generations", "show", second]) == 0
    assert "withdrawn: fewer clicks" in capfd.readouterr().out
    assert asked(capfd, "generations", "promote", second, "--anyway")["generation"] == second


def test_a_fit_that_was_refused_names_its_report(
    settings: Settings, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["train"]) == 0
    told = capfd.readouterr().out
    assert told.startswith("promoted 1-")
    assert "report: " in told
    send(settings, taste(600, start=600))
    monkeypatch.setenv("RHEOS_TRAINER_PARAMETERS", '{"factors": 1, "iterations": 1}')
    assert main(["train"]) == 1
    told = capfd.readouterr().out
    assert told.startswith("refused: NDCG@20 ")
    page = Path(told.rstrip().rpartition("report: ")[2])
    assert page.is_file()
    assert main(["generations", "report", page.parent.name]) == 0
    assert str(page) in capfd.readouterr().out


def test_before_the_first_there_is_nothing_to_show(
    settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["generations", "show"]) == 1
    assert "no generation is serving yet" in capfd.readouterr().err


def test_tuning_prints_what_belongs_into_the_settings(
    settings: Settings, capfd: pytest.CaptureFixture[str]
) -> None:
    told = asked(capfd, "tune", "--trials", "2")
    assert told["model"] == "als"
    assert told["trials"] == 2
    assert main(["tune", "--trials", "1"]) == 0
    printed = capfd.readouterr().out
    assert "(3 trials, kept in " in printed
    assert "[trainer.parameters]\nfactors = " in printed

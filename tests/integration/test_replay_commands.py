"""`rheos replay` and `rheos dead-letters` as a person calls them."""

import json
from pathlib import Path

import pytest

from rheos.cli import main
from rheos.local_kafka import KafkaProcess

pytestmark = pytest.mark.kafka

MAP = ["--map", "user=who", "item=what", "time=at", "--type", "purchase", "--time-unit", "iso"]
TABLE = "who,what,at\n1.0,a,2010-12-01 08:26:00\n,b,2010-12-01 08:27:00\n2,\x1b[2Jc,2010-12-02\n"

Output = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def environment(
    broker: KafkaProcess, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RHEOS_KAFKA_BOOTSTRAP", broker.bootstrap)
    monkeypatch.setenv("RHEOS_KAFKA_PREFIX", prefix)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def file(tmp_path: Path) -> str:
    (tmp_path / "shop.csv").write_text(TABLE)
    return "shop.csv"


def test_a_file_is_replayed_once_and_its_bad_rows_are_listed(file: str, capsys: Output) -> None:
    assert main(["replay", file, *MAP]) == 0
    out = capsys.readouterr().out
    assert "3 rows in" in out
    assert "1 events, 2 dead letters" in out
    assert "1 missing_field" in out
    assert main(["replay", file, *MAP]) == 0
    assert "nothing left: earlier runs sent the rows before 3" in capsys.readouterr().out

    assert main(["dead-letters"]) == 0
    out = capsys.readouterr().out
    assert "shop.csv[0]@1" in out
    assert "who is missing or blank" in out
    assert "\x1b[2J" not in out  # a row's own bytes must not drive the terminal

    assert main(["dead-letters", "--json", "--limit", "1"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert listed["reasons"] == {"control_character": 1, "missing_field": 1}
    assert [letter["place"] for letter in listed["letters"]] == ["shop.csv[0]@2"]

    assert main(["dead-letters", "--replay", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kept"] == {"from_a_file": 2}


def test_shares_and_json(file: str, capsys: Output) -> None:
    assert main(["replay", file, *MAP, "--until", "34%", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["next_row"] == 1
    assert main(["replay", file, *MAP, "--rate", "100", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["rows"], summary["all_events"]) == (2, 1)


def test_no_dead_letters_are_told(capsys: Output) -> None:
    assert main(["dead-letters"]) == 0
    assert "no dead letters" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "status", "line"),
    [
        (["none.csv", *MAP], 1, "none.csv: No such file or directory"),
        (["shop.csv", "--type", "purchase"], 2, "no column user_id, item_id, time_ms; it has who,"),
        (["shop.csv", "--map", "who"], 2, "--map who: NAME=VALUE is needed"),
        (["shop.csv", *MAP, "--rate", "1", "--speed", "1"], 2, "--rate or --speed"),
        (["shop.csv", *MAP, "--from", "half"], 2, "--from half: a row number, 0.5 or 50%"),
        (["shop.csv", *MAP, "--until", "150%"], 2, "--until 150%: a row number, 0.5 or 50%"),
        (["shop.xlsx", *MAP], 1, "the name must end in .csv .tsv"),
    ],
)
def test_wrong_usage_is_told_in_one_line(
    file: str, capsys: Output, words: list[str], status: int, line: str
) -> None:
    assert main(["replay", *words]) == status
    told = capsys.readouterr().err
    assert line in told
    assert told.count("\n") == 1


def test_an_unknown_reason_is_told_with_those_that_exist(capsys: Output) -> None:
    assert main(["dead-letters", "--reason", "bad_luck"]) == 2
    assert "--reason bad_luck: reasons are not_json, wrong_type" in capsys.readouterr().err

"""``rheos evaluate time-split`` with a catalogue: new items and users are told by their records."""

import json

import numpy as np
import pytest

from rheos.cli import main

PARAMETERS = {
    **{"factors": 8, "hidden": 16, "epochs": 20, "batch": 64, "learning_rate": 0.02},
    **{"negatives": 8, "last": 10},
}
OLD, NEW = range(24), range(24, 32)


@pytest.fixture
def shop(tmp_path, monkeypatch):
    """Who buys of one colour buys on in it, lately things that nobody had before."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RHEOS_TRAINER_MODEL", "two_tower")
    monkeypatch.setenv("RHEOS_TRAINER_THREADS", "1")
    monkeypatch.setenv("RHEOS_TRAINER_PARAMETERS", json.dumps(PARAMETERS))
    random = np.random.default_rng(0)
    lines = ["customer,code,when"]
    for customer in range(40):
        own = [item for item in OLD if item % 2 == customer % 2]
        for place, item in enumerate(random.permutation(own)[:10]):
            lines.append(f"{customer},{item},2011-01-{1 + place:02d}")
        lines.append(f"{customer},{customer % 2 + int(random.choice(NEW[::2]))},2011-02-01")
    (tmp_path / "sales.csv").write_text("\n".join(lines) + "\n")
    items = [
        {"item_id": str(item), "category": ("white", "black")[item % 2]} for item in [*OLD, *NEW]
    ]
    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, items)) + "\n")
    return tmp_path


def time_split(*more):
    return [
        *("evaluate", "time-split", "sales.csv", "--at", "2011-01-20", "--k", "8"),
        *("--map", "user=customer", "--map", "item=code", "--map", "time=when", *more),
    ]


def hits_of_new_items(capsys, *more):
    assert main(time_split("--json", *more)) == 0
    judgements = json.loads(capsys.readouterr().out)["judgements"]
    bands = {name: found["by_item"][0] for name, found in judgements.items()}
    assert {(band["name"], band["cases"]) for band in bands.values()} == {("0", 40)}
    return {name: band["measures"]["hit_rate"]["mean"] for name, band in bands.items()}


def test_new_items_are_found_by_a_model_that_reads_their_records(shop, capsys):
    models = ("--model", "als", "--model", "two_tower")
    found = hits_of_new_items(capsys, *models, "--items", "items.jsonl")
    assert found["popularity"] == found["als"] == 0.0
    assert found["two_tower"] > 0.7


@pytest.mark.parametrize(
    ("name", "line", "told"),
    [
        ("items.jsonl", '{"item_id": "1", "price": -1}', "record 2: price -1"),
        ("items.jsonl", "{", "record 2"),
        ("items.jsonl", '{"title": "no id"}', "record 2"),
        ("items.csv", "item_id", "JSON lines are needed"),
    ],
)
def test_a_record_that_is_none_is_told_in_one_line(shop, capsys, name, line, told):
    path = shop / name
    path.write_text('{"item_id": "0"}\n' + line + "\n")
    assert main(time_split("--items", name)) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1


def test_files_that_are_not_there_are_named(shop, capsys):
    assert main(time_split("--users", "nobody.jsonl")) == 1
    assert "nobody.jsonl" in capsys.readouterr().err

"""The runner of the papers' rows: what is trained once is evaluated again, and shortfalls tell."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import paper_tables
from benchmarks.paper_rows import row as row_module
from benchmarks.paper_rows.row import PaperRow, at_least


class Bench:
    """A row whose model has one number, in place of those that take hours."""

    def __init__(self, reached: float, most_seconds: float | None = None) -> None:
        self.trainings = 0
        self.row = PaperRow(
            *("row", "data", "a split", "a model"),
            train=self.train,
            evaluate=lambda folder: json.loads((folder / "kept.json").read_text("utf-8")),
            shortfalls=at_least(hr_10=0.5),
            most_seconds=most_seconds,
        )
        self.reached = reached

    def train(self, folder: Path, *, seed: int, threads: int) -> dict[str, Any]:
        self.trainings += 1
        (folder / "kept.json").write_text(json.dumps({"hr@10": self.reached}), "utf-8")
        return {"threads seen": threads}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs the command on one row; gives its exit status and its JSON."""
    (tmp_path / "data").mkdir()
    monkeypatch.setattr(paper_tables, "DATA", tmp_path)

    def with_words(bench: Bench, *words: str) -> tuple[int, Any]:
        monkeypatch.setattr(paper_tables, "rows", lambda: {"row": bench.row})
        monkeypatch.setattr(sys, "argv", ["paper_tables.py", *words, "--json"])
        status = paper_tables.main()
        said = capsys.readouterr().out
        return status, json.loads(said) if said else None

    return with_words


def test_a_row_that_reaches_what_it_owes_ends_with_0(run: Any) -> None:
    status, told = run(Bench(0.5), "row", "--seed", "7")
    assert status == 0
    assert told["claims"] == {"row: as good as its row": True}
    assert told["row"]["figures"] == {"hr@10": 0.5}
    assert told["row"]["training"]["seed"] == 7
    assert told["row"]["training"]["cpu_seconds"] >= 0
    assert "--seed 7 --snapshot DIR" in told["row"]["command"]


@pytest.mark.parametrize("reached", [0.4999, float("nan")])
def test_one_that_falls_short_ends_with_1_and_says_by_what(run: Any, reached: float) -> None:
    status, told = run(Bench(reached))
    assert status == 1
    assert told["row"]["falls_short"] == [f"hr@10 {reached:.4f} is below 0.5"]


def test_one_that_trains_too_long_ends_with_1(run: Any) -> None:
    status, told = run(Bench(0.6, most_seconds=-1.0))
    assert status == 1
    assert told["claims"]["row: trained within -1 CPU seconds"] is False


def test_what_a_snapshot_holds_is_evaluated_and_not_trained_again(run: Any, tmp_path: Path) -> None:
    bench = Bench(0.6)
    _, first = run(bench, "--snapshot", str(tmp_path / "kept"))
    _, again = run(bench, "--snapshot", str(tmp_path / "kept"), "--seed", "3")
    assert bench.trainings == 1
    assert not first["row"]["evaluated_from_a_snapshot"]
    assert again["row"]["evaluated_from_a_snapshot"]
    assert again["row"]["training"] == first["row"]["training"]


def test_no_such_row_and_no_data_are_told(run: Any, tmp_path: Path) -> None:
    assert run(Bench(0.6), "mystery") == (2, None)
    (tmp_path / "data").rmdir()
    assert run(Bench(0.6)) == (2, None)


def test_every_row_of_the_table_is_there() -> None:
    found = paper_tables.rows()
    assert set(found) == {
        *("neumf-ml-1m", "mf-ml-1m", "gmf-ml-1m", "mlp-ml-1m", "bpr-gowalla"),
        *("lightgcn-gowalla", "graph-gowalla", "sequence-ml-100k"),
        *("sequence-rsc15", "ease-online-retail", "fusion-online-retail", "ranker-online-retail"),
    }
    assert all(name == row.name for name, row in found.items())
    assert row_module.DATA == paper_tables.DATA

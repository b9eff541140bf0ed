"""What ``rheos status`` shows of a running system."""

import pytest

from rheos.cli.probe import WorkerStatus
from rheos.cli.status import _print


def test_a_running_fit_stands_beside_its_trainer(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    workers = [
        WorkerStatus(name, "http://127.0.0.1:80", "ready", "", 0, {})
        for name in ("indexer", "stream", "trainer")
    ]
    fit = {"model": "mf", "stage": "fit", "done": 3, "total": 1256, "began_ms": 0}
    _print("127.0.0.1:9092", None, workers, {"generation": None, "fit": fit})
    lines = capsys.readouterr().out.splitlines()
    (told,) = [line for line in lines if "fits mf: fit 3 of 1,256" in line]
    assert "trainer" in told
    _print("127.0.0.1:9092", None, workers, {"generation": None, "fit": None})
    assert "fits" not in capsys.readouterr().out

"""Reports of refused candidates: whole or not there, and only the newest."""

import os
from pathlib import Path

import pytest

from trainer import refused
from trainer.refused import RefusedReports

FILES = {"report.json": b"{}", "report.html": b"<p>"}


def test_the_newest_stay_by_when_they_were_written_and_not_by_their_number(tmp_path: Path) -> None:
    reports = RefusedReports(tmp_path / "refused")
    assert reports.names() == []
    # Numbers begin anew where the generations do.
    names = [f"{9 - n % 5}-{n:08x}" for n in range(refused.KEPT + 3)]
    for n, name in enumerate(names):
        os.utime(reports.keep(name, FILES), (1000 + n, 1000 + n))
    assert reports.names() == names[3:]
    assert (reports.path(names[-1]) / "report.json").read_bytes() == b"{}"


def test_what_cannot_be_written_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports = RefusedReports(tmp_path)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        reports.keep("1-0123abcd", FILES)
    assert list(tmp_path.iterdir()) == []


def test_other_folders_are_left_alone_and_a_torn_ones_remains_go(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    torn = tmp_path / ".writing-abc"
    torn.mkdir()
    os.utime(torn, (0, 0))
    reports = RefusedReports(tmp_path)
    reports.keep("1-0123abcd", FILES)
    assert reports.names() == ["1-0123abcd"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1-0123abcd", "mine"]

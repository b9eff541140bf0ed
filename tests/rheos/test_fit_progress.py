"""How far a fit is, for whoever reads the snapshot store."""

from pathlib import Path

import msgspec
import pytest

from rheos import fit_progress
from rheos.fit_progress import FILE, FORGOTTEN_S, FitProgress, read, told

Heard = list[tuple[str, int, int]]


def kept(directory: Path, **changed: object) -> None:
    """A record as a fit leaves it that was killed a moment ago."""
    fields = {"model": "als", "stage": "fit", "done": 1, "total": 3, "began_ms": 1, "told_ms": 2}
    (directory / FILE).write_bytes(msgspec.json.encode(fields | changed))


def test_what_is_told_is_read_and_passed_on_and_goes_with_the_fit(tmp_path: Path) -> None:
    store, heard = tmp_path / "not there yet", Heard()
    with told(store, "als", lambda *one: heard.append(one)) as tell:
        assert read(store) is None
        tell("fit", 1, 15)
        found = read(store)
        assert found is not None
        assert (found.model, found.stage, found.done, found.total) == ("als", "fit", 1, 15)
        assert found.began_ms <= found.told_ms
    assert read(store) is None
    assert heard == [("fit", 1, 15)]
    assert list(store.iterdir()) == []


def test_a_fit_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def failing() -> None:
        with told(tmp_path, "als", lambda *_: None) as tell:
            tell("fit", 1, 15)
            raise ValueError("diverged")

    with pytest.raises(ValueError, match="diverged"):
        failing()
    assert read(tmp_path) is None


def test_fast_steps_are_passed_on_but_not_all_written(tmp_path: Path) -> None:
    heard = Heard()
    with told(tmp_path, "als", lambda *one: heard.append(one)) as tell:
        for step in range(1, 100):
            tell("fit", step, 100)
        early = read(tmp_path)
        tell("fit", 100, 100)  # the end of a stage is
        late = read(tmp_path)
        tell("gate", 0, 1)  # and the next one's beginning
        gate = read(tmp_path)
    assert len(heard) == 101
    assert early is not None
    assert early.done < 99
    assert late is not None
    assert late.done == 100
    assert gate is not None
    assert gate.stage == "gate"


def test_a_killed_fit_is_forgotten_after_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept(tmp_path, told_ms=1_000)
    monkeypatch.setattr(fit_progress, "_now_ms", lambda: 2_000)
    assert isinstance(read(tmp_path), FitProgress)
    monkeypatch.setattr(fit_progress, "_now_ms", lambda: 1_001 + int(FORGOTTEN_S * 1000))
    assert read(tmp_path) is None


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"model": 3}', b"\xff\xfe"])
def test_what_is_no_record_says_nothing(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    assert read(tmp_path) is None


def test_a_store_that_takes_no_file_stops_no_fit(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.write_text("a file where the folder should be")
    heard = Heard()
    with told(store, "als", lambda *one: heard.append(one)) as tell:
        tell("fit", 1, 15)
    assert heard == [("fit", 1, 15)]
    assert read(store) is None

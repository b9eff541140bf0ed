"""The archive's files: what a crash, a second writer or a bad disk can do to them."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from rheos.durable import LEFTOVER_S
from tests.trainer.archived import read
from trainer import archive as archive_module
from trainer.archive import (
    MANY_FILES,
    SCHEMA,
    Archive,
    ArchiveConflictError,
    ArchiveError,
)


def rows(*offsets: int) -> dict[str, Any]:
    """Records with the given offsets, each told apart by its user."""
    columns: dict[str, Any] = {name: [None] * len(offsets) for name in SCHEMA.names}
    columns |= {
        "offset": list(offsets),
        "append_time_ms": [1000 + offset for offset in offsets],
        "event_hash": [2**63 + offset for offset in offsets],
        "user_id": [f"u{offset}" for offset in offsets],
        "item_id": ["i"] * len(offsets),
        "type": ["click"] * len(offsets),
        "time_ms": list(offsets),
    }
    return columns


def offsets(archive: Archive) -> list[tuple[int, int]]:
    table, _ = read(archive, ["offset"])
    return list(zip(table["partition"].to_pylist(), table["offset"].to_pylist(), strict=True))


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(tmp_path, "topic-a")


def files(archive: Archive, partition: int = 0) -> list[Path]:
    return sorted((archive.directory / f"partition={partition}").glob("events-*"))


def test_an_empty_archive_has_no_position_and_no_rows(archive: Archive) -> None:
    assert archive.position(0) is None
    table, window = read(archive, ["offset", "user_id"])
    assert (len(table), window) == (0, {})
    assert archive.compact() == 0


def test_the_next_position_is_where_the_names_end(archive: Archive) -> None:
    archive.commit(0, 5, 9, rows(5, 7))  # 6 and 8 were markers
    archive.commit(0, 9, 12, rows())  # nothing but refused records
    archive.commit(1, 0, 1, rows(0))
    assert archive.position(0) == 12
    assert read(archive, ["offset"]).window == {"0": (5, 12), "1": (0, 1)}
    assert offsets(archive) == [(0, 5), (0, 7), (1, 0)]
    assert files(archive)[0].name == f"events-{5:020d}-{9:020d}.parquet"


def test_columns_come_back_as_they_went_in(archive: Archive) -> None:
    columns = rows(3)
    columns |= {
        "value": [1.5],
        "session_id": ["s"],
        "context": ['{"a":1}'],
        "user_id": ["Zoë \x7e"],
    }
    archive.commit(0, 3, 4, columns)
    table = read(archive, SCHEMA.names).table
    assert table.select(SCHEMA.names).to_pydict() == columns


@pytest.mark.parametrize("moment", ["while writing", "before the rename", "after the rename"])
def test_a_crash_leaves_neither_a_gap_nor_a_double(archive: Archive, moment: str) -> None:
    archive.commit(0, 0, 2, rows(0, 1))
    victim = {
        "while writing": "archive_module.os.fsync = lambda _: os._exit(9)",
        "before the rename": "Path.rename = lambda *_: os._exit(9)",
        "after the rename": "archive_module.sync_directory = lambda _: os._exit(9)",
    }[moment]
    code = (
        "import os\nfrom pathlib import Path\n"
        "from trainer import archive as archive_module\n"
        "from tests.trainer.test_archive import rows\n"
        f"archive = archive_module.Archive(Path({str(archive.directory.parent)!r}), 'topic-a')\n"
        f"{victim}\narchive.commit(0, 2, 4, rows(2, 3))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 9
    position = archive.position(0)
    assert position == (4 if moment == "after the rename" else 2)
    if position == 2:
        archive.commit(0, 2, 4, rows(2, 3))
    archive.commit(0, 4, 5, rows(4))
    assert offsets(archive) == [(0, offset) for offset in range(5)]


def test_a_full_disk_leaves_nothing_behind(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(archive_module.os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            archive.commit(0, 0, 2, rows(0, 1))
    assert archive.position(0) is None
    assert list((archive.directory / "partition=0").iterdir()) == []
    archive.commit(0, 0, 2, rows(0, 1))
    assert offsets(archive) == [(0, 0), (0, 1)]


def test_the_second_writer_of_the_same_offsets_is_told(archive: Archive) -> None:
    other = Archive(archive.directory.parent, "topic-a")
    archive.commit(0, 0, 2, rows(0, 1))
    with pytest.raises(ArchiveConflictError, match="archived to 2, not 0"):
        other.commit(0, 0, 5, rows(0, 1, 2))
    assert offsets(archive) == [(0, 0), (0, 1)]
    assert len(list((archive.directory / "partition=0").iterdir())) == 1


def test_another_topic_of_the_same_name_is_kept_apart(archive: Archive) -> None:
    archive.commit(0, 0, 2, rows(0, 1))
    replaced = Archive(archive.directory.parent, "topic-b")
    assert replaced.position(0) is None
    replaced.commit(0, 0, 1, rows(0))
    assert offsets(archive) == [(0, 0), (0, 1)]
    assert offsets(replaced) == [(0, 0)]


@pytest.mark.parametrize(
    ("start", "end", "how"), [(1, 5, "overlaps"), (3, 5, "leaves a gap after")]
)
def test_files_that_do_not_follow_on_each_other_are_named(
    archive: Archive, start: int, end: int, how: str
) -> None:
    archive.commit(0, 0, 2, rows(0, 1))
    stray = Archive(archive.directory.parent, "elsewhere")
    stray.commit(0, start, end, rows(start))
    (found,) = files(stray)
    found.rename(files(archive)[0].with_name(found.name))
    for use in (lambda: archive.position(0), lambda: read(archive, ["offset"]), archive.compact):
        with pytest.raises(ArchiveError, match=rf"{found.name} {how} events-0.*read from Kafka"):
            use()


def damage_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def damage_empty(path: Path) -> None:
    path.write_bytes(b"")


def damage_flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[40] ^= 0x10  # inside of the first column's page
    path.write_bytes(bytes(data))


def damage_rename(path: Path) -> None:
    path.rename(path.with_name(f"events-{1:020d}-{4:020d}.parquet"))


def damage_other(path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"offset": [0]}), path)


@pytest.mark.parametrize(
    "damage", [damage_cut, damage_empty, damage_flip, damage_rename, damage_other]
)
def test_a_damaged_file_is_named(archive: Archive, damage: Any) -> None:
    archive.commit(0, 0, 4, rows(0, 1, 2, 3))
    damage(files(archive)[0])
    with pytest.raises(ArchiveError, match=r"partition=0/events-.*read from Kafka again"):
        read(archive, ["offset"])


def test_foreign_files_are_no_part_of_it(archive: Archive) -> None:
    archive.commit(0, 0, 1, rows(0))
    directory = archive.directory / "partition=0"
    for name in ("README", ".writing-abc.parquet", "events-1-2.parquet", "events-0-1.parquet.bak"):
        (directory / name).write_text("mine")
    (archive.directory / "partition=x").mkdir()
    assert offsets(archive) == [(0, 0)]
    assert archive.position(0) == 1


def small_files(archive: Archive, count: int) -> None:
    for number in range(count):
        archive.commit(0, 2 * number, 2 * number + 2, rows(2 * number))


def test_many_small_files_become_one_with_the_same_rows(archive: Archive) -> None:
    small_files(archive, MANY_FILES + 3)
    before = read(archive, ["offset", "user_id"])
    assert archive.compact() == MANY_FILES + 3
    assert len(files(archive)) == 1
    assert read(archive, ["offset", "user_id"]) == before
    assert archive.compact() == 0
    archive.commit(0, 2 * (MANY_FILES + 3), 99, rows(98))
    assert archive.position(0) == 99


def test_few_files_are_left_alone(archive: Archive) -> None:
    small_files(archive, MANY_FILES - 1)
    assert archive.compact() == 0
    assert len(files(archive)) == MANY_FILES - 1


def test_a_merge_cut_short_doubles_nothing(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_files(archive, MANY_FILES)
    before = read(archive, ["offset"])
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            archive.compact()
    assert len(files(archive)) == MANY_FILES + 1  # the merged one and all small ones
    assert read(archive, ["offset"]) == before
    assert archive.position(0) == 2 * MANY_FILES
    assert archive.compact() == MANY_FILES
    assert read(archive, ["offset"]) == before


def test_what_a_crash_left_half_written_goes_with_time(archive: Archive) -> None:
    archive.commit(0, 0, 2, rows(0, 1))
    (directory,) = archive.directory.glob("partition=*")
    for name, age in (("old", LEFTOVER_S + 60), ("new", 0.0)):
        left = directory / f".writing-{name}.parquet"
        left.write_bytes(b"PAR1")
        then = time.time() - age
        os.utime(left, (then, then))
    assert archive.compact() == 0
    assert [path.name for path in directory.glob(".writing-*")] == [".writing-new.parquet"]
    assert offsets(archive) == [(0, 0), (0, 1)]


def test_any_mixture_of_commits_crashes_and_merges_keeps_the_log(
    archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the obvious reference: a list."""
    dice = random.Random(5)
    expected: list[tuple[int, int]] = []
    position = 0

    def torn(*_: Any) -> None:
        raise OSError("torn")

    for _ in range(120):
        span = dice.randrange(1, 6)
        taken = [offset for offset in range(position, position + span) if dice.random() < 0.8]
        crash = dice.random() < 0.2
        try:
            with monkeypatch.context() as patch:
                if crash:
                    patch.setattr(archive_module, "sync_directory", torn)
                archive.commit(0, position, position + span, rows(*taken))
        except OSError:
            assert crash
        # Whether the torn commit counted is for the names to say.
        if archive.position(0) == position + span:
            expected += [(0, offset) for offset in taken]
            position += span
        if dice.random() < 0.1:
            archive.compact()
    assert offsets(archive) == expected


def scanned(archive: Archive, window: dict[str, tuple[int, int]], **more: Any) -> list[int]:
    return [
        offset
        for found in archive.scan(["user_id"], window, **more)
        for offset in found.columns.column("offset").to_pylist()
    ]


def test_a_scan_goes_on_where_another_process_merges_and_commits(archive: Archive) -> None:
    small_files(archive, MANY_FILES)
    window = archive.window()
    found = archive.scan(["user_id"], window)
    seen = [next(found).columns.column("offset").to_pylist() for _ in range(3)]
    assert archive.compact() == MANY_FILES
    archive.commit(0, 2 * MANY_FILES, 2 * MANY_FILES + 2, rows(2 * MANY_FILES))
    seen += [part.columns.column("offset").to_pylist() for part in found]
    assert [offset for part in seen for offset in part] == list(range(0, 2 * MANY_FILES, 2))


def test_a_scan_keeps_to_its_window(archive: Archive) -> None:
    archive.commit(0, 0, 10, rows(*range(10)))
    archive.commit(0, 10, 20, rows(*range(10, 20)))
    archive.commit(1, 0, 1, rows(0))
    assert scanned(archive, {"0": (7, 13)}) == list(range(7, 13))
    assert scanned(archive, {"0": (13, 13)}) == []


def test_offsets_that_are_gone_are_named(archive: Archive) -> None:
    archive.commit(0, 5, 10, rows(*range(5, 10)))
    with pytest.raises(ArchiveError, match="partition=0 has no offset 3"):
        scanned(archive, {"0": (3, 10)})
    with pytest.raises(ArchiveError, match="partition=0 has no offset 10"):
        scanned(archive, {"0": (5, 12)})


def test_a_file_that_is_listed_but_never_there_ends_the_scan(archive: Archive) -> None:
    archive.commit(0, 0, 1, rows(0))
    (directory,) = archive.directory.glob("partition=0")
    (directory / f"events-{1:020d}-{2:020d}.parquet").symlink_to(directory / "nowhere")
    with pytest.raises(ArchiveError, match="partition=0 has no offset 1"):
        read(archive, ["offset"])


def test_what_is_older_than_asked_for_may_be_left_out(archive: Archive) -> None:
    archive.commit(0, 0, 10, rows(*range(10)))
    archive.commit(0, 10, 20, rows(*range(10, 20)))  # arrived from 1,010 on
    window = archive.window()
    assert scanned(archive, window, since_ms=1_010) == list(range(10, 20))
    assert scanned(archive, window, since_ms=1_009) == list(range(20))

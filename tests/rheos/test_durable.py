"""What a killed writer leaves behind goes; what a living one is writing stays."""

import os
import time
from pathlib import Path

from rheos.durable import LEFTOVER_S, remove_leftovers


def aged(path: Path, seconds: float) -> Path:
    """Sets when a file or directory was written last."""
    then = time.time() - seconds
    os.utime(path, (then, then))
    return path


def test_only_old_files_and_directories_of_the_prefixes_are_deleted(tmp_path: Path) -> None:
    for name, age in (("old", LEFTOVER_S + 60), ("new", LEFTOVER_S - 60)):
        for prefix in (".writing-", ".deleting-", "mine-"):
            directory = tmp_path / f"{prefix}{name}"
            directory.mkdir()
            (directory / "file").write_text("x")
            aged(directory, age)
        (tmp_path / f".writing-{name}.parquet").write_text("x")
        aged(tmp_path / f".writing-{name}.parquet", age)
    remove_leftovers(tmp_path, ".writing-", ".deleting-")
    assert {path.name for path in tmp_path.iterdir()} == {
        *(".writing-new", ".deleting-new", ".writing-new.parquet"),
        *("mine-old", "mine-new"),
    }

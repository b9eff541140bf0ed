"""Directories that are filled by renaming: making a rename last, and clearing up after a crash."""

import contextlib
import os
import shutil
import time
from pathlib import Path

LEFTOVER_S = 3600.0
"""What has a temporary name and has not been written to for so long is nobody's any more."""


def sync_directory(path: Path) -> None:
    """Makes the names in a directory survive a power cut. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_leftovers(directory: Path, *prefixes: str) -> None:
    """Deletes files and directories of these prefixes that are older than LEFTOVER_S.

    What cannot be deleted stays: it is in nobody's way but the disk's.
    """
    latest = time.time() - LEFTOVER_S
    for path in directory.iterdir():
        if not path.name.startswith(prefixes):
            continue
        with contextlib.suppress(OSError):  # such as: another process was quicker
            if path.stat().st_mtime >= latest:
                continue
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()

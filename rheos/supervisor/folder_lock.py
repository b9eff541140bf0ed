"""One supervisor for a data folder."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK_NAME = "supervisor.lock"


class FolderBusyError(RuntimeError):
    """Another process holds the folder; the message is one line that names both."""


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Hold `folder` for the time of the block; never waits. Raises `FolderBusyError`.

    The kernel lets go of it however this process ends. Its file stays; who empties the folder
    spares `LOCK_NAME`, for a lock on a removed file keeps nobody out.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK_NAME).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise FolderBusyError(
                f"{folder} is in use by process {file.read().strip() or '(starting)'}: stop it "
                "first, or choose another data folder"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield

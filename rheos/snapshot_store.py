"""Where snapshots live. A local directory now; object storage joins behind the same methods."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from rheos import snapshot
from rheos.durable import remove_leftovers
from rheos.snapshot import Manifest, Snapshot, SnapshotError
from rheos.state import Float32s

_DELETING = ".deleting-"


class SnapshotStore(Protocol):
    """All methods block on I/O. Names are generations' (``12-3fa94c01``)."""

    def put(
        self,
        manifest: Manifest,
        item_ids: Sequence[str],
        tensors: Mapping[str, Float32s],
        files: Mapping[str, bytes] = {},
    ) -> str:
        """Stores a snapshot, extra files with it, wholly or not at all, and returns its name."""

    def get(self, name: str) -> Snapshot:
        """The verified snapshot; raises SnapshotError if it is absent or anything is wrong."""

    def extra(self, name: str, file: str) -> bytes:
        """A verified extra file of a snapshot; raises SnapshotError if there is none."""

    def names(self) -> list[str]:
        """All stored names, by number."""

    def delete(self, name: str) -> None:
        """Removes a snapshot; an absent one is no error."""


class LocalStore:
    """Snapshots as directories below one directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def put(
        self,
        manifest: Manifest,
        item_ids: Sequence[str],
        tensors: Mapping[str, Float32s],
        files: Mapping[str, bytes] = {},
    ) -> str:
        name = snapshot.write(self._directory, manifest, item_ids, tensors, files).name
        remove_leftovers(self._directory, snapshot.WRITING, _DELETING)
        return name

    def get(self, name: str) -> Snapshot:
        return snapshot.read(self.path(name))

    def extra(self, name: str, file: str) -> bytes:
        return snapshot.read_extra(self.path(name), file)

    def path(self, name: str) -> Path:
        """The directory of a stored snapshot. Raises SnapshotError if there is none."""
        if not snapshot.is_name(name):
            raise SnapshotError(f"snapshot {name!r}: the name is no generation's, like 12-3fa94c01")
        if not (self._directory / name).is_dir():
            raise SnapshotError(f"snapshot {name}: not in {self._directory}")
        return self._directory / name

    def names(self) -> list[str]:
        if not self._directory.is_dir():
            return []
        found = [path.name for path in self._directory.iterdir() if snapshot.is_name(path.name)]
        return sorted(found, key=lambda name: (snapshot.number_of(name), name))

    def delete(self, name: str) -> None:
        if not snapshot.is_name(name):
            raise SnapshotError(f"snapshot {name!r}: the name is no generation's, like 12-3fa94c01")
        # Renamed first: a reader sees the whole directory or none.
        source, gone = self._directory / name, self._directory / f"{_DELETING}{name}"
        if source.is_dir():
            shutil.rmtree(gone, ignore_errors=True)
            source.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)

"""The event archive: Parquet files whose names say which offsets they hold.

    <archive>/<topic id>/partition=<P>/events-<from>-<to>.parquet        offsets [from, to)

A file's rename into place is the commit, and the next position is read from the names, so a crash
at any moment leaves neither a gap nor a double. Markers and refused records leave holes inside a
file: ``to`` is a position, not the last row's offset plus one. Another topic under the same name
has another id, and so a directory of its own.
"""

import fcntl
import itertools
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from rheos.durable import remove_leftovers, sync_directory

SCHEMA = pa.schema(
    [
        ("offset", pa.int64()),
        ("append_time_ms", pa.int64()),
        ("event_hash", pa.uint64()),
        ("user_id", pa.string()),
        ("item_id", pa.string()),
        ("type", pa.string()),
        ("time_ms", pa.int64()),
        ("value", pa.float64()),
        ("event_id", pa.string()),
        ("session_id", pa.string()),
        ("request_id", pa.string()),
        ("context", pa.string()),
    ]
)

SMALL_BYTES = 8 * 1024 * 1024
"""Files below this size are worth merging."""
MANY_FILES = 16
"""So many small neighbours are merged into one."""

_REMEDY = (
    "remove it and those after it in its partition, and their events are read from Kafka again"
)
_WRITING = ".writing-"
_NAME = re.compile(r"^events-(\d{20})-(\d{20})\.parquet$")
_PARTITION = re.compile(r"^partition=(\d+)$")


class ArchiveError(RuntimeError):
    """The archive must not be used as it is; the text names the file and the way out."""


class ArchiveConflictError(RuntimeError):
    """Another process archived these offsets meanwhile; read on from the archive's position."""


class Segment(NamedTuple):
    """One file: a partition's offsets [start, end)."""

    path: Path
    start: int
    end: int


class Archived(NamedTuple):
    """``table`` has a row a record, by partition and offset; ``window`` tells each partition's
    offsets [from, to) that were read for it.
    """

    table: pa.Table
    window: dict[str, tuple[int, int]]


class Archive:
    """The archive of one topic. Several processes may commit to it; a lock keeps them apart."""

    def __init__(self, directory: Path, topic_id: str) -> None:
        self.topic_id = topic_id
        self.directory = directory / topic_id

    def partitions(self) -> list[int]:
        """The partitions that have files, in order."""
        if not self.directory.is_dir():
            return []
        found = (_PARTITION.match(path.name) for path in self.directory.iterdir())
        return sorted(int(match[1]) for match in found if match)

    def segments(self, partition: int) -> list[Segment]:
        """A partition's files in offset order, each beginning where the one before it ends.

        A file that lies wholly inside another one is what a merge cut short left, and is passed
        over. Raises ArchiveError where two overlap otherwise, or where one is missing.
        """
        directory = self._partition_directory(partition)
        if not directory.is_dir():
            return []
        found = [segment for path in directory.iterdir() if (segment := _segment(path))]
        found.sort(key=lambda segment: (segment.start, -segment.end))
        kept: list[Segment] = []
        for segment in found:
            if kept and segment.end <= kept[-1].end:
                continue
            if kept and segment.start != kept[-1].end:
                how = "overlaps" if segment.start < kept[-1].end else "leaves a gap after"
                raise ArchiveError(f"{segment.path} {how} {kept[-1].path.name}; {_REMEDY}")
            kept.append(segment)
        return kept

    def position(self, partition: int) -> int | None:
        """The next offset to archive, or None where nothing is archived yet."""
        segments = self.segments(partition)
        return segments[-1].end if segments else None

    def begin(self, partition: int, default: int) -> int:
        """The first archived offset; ``default`` where nothing is archived yet."""
        segments = self.segments(partition)
        return segments[0].start if segments else default

    def commit(self, partition: int, start: int, end: int, columns: Mapping[str, Any]) -> None:
        """Adds the records of offsets [start, end). Durable on return, and all or nothing.

        ``columns`` are SCHEMA's, in offset order. 1. the file is written under another name and
        fsynced; 2. under the lock the position must still be ``start``; 3. the rename commits.
        Raises ArchiveConflictError, ArchiveError, OSError.
        """
        table = pa.table(columns, schema=SCHEMA)
        directory = self._partition_directory(partition)
        directory.mkdir(parents=True, exist_ok=True)
        temporary = _write_durably(directory, table)  # 1
        try:
            with self._locked():
                position = self.position(partition)  # 2
                if position is not None and position != start:
                    raise ArchiveConflictError(
                        f"partition {partition} is archived to {position}, not {start}"
                    )
                temporary.rename(directory / _file_name(start, end))  # 3
                sync_directory(directory)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def read(self, columns: Sequence[str]) -> Archived:
        """All that is archived now, of the named columns and ``partition``.

        Raises ArchiveError for a file that is corrupt or does not hold what its name says.
        """
        tables = []
        window = {}
        for partition in self.partitions():
            segments = self.segments(partition)
            if segments:
                window[str(partition)] = (segments[0].start, segments[-1].end)
            for segment in segments:
                table = _read(segment)
                number = pa.array([partition], pa.int32()).take(
                    pa.array([0] * len(table), pa.int32())
                )
                tables.append(table.select(columns).append_column("partition", number))
        schema = pa.schema([*(SCHEMA.field(name) for name in columns), ("partition", pa.int32())])
        return Archived(pa.concat_tables(tables) if tables else schema.empty_table(), window)

    def compact(self) -> int:
        """Merges runs of small neighbouring files; returns how many files went.

        The merged file's rename makes the small ones superfluous (they lie inside of it); they
        are removed after that, at once or, after a crash, by the next call.
        """
        removed = 0
        for partition in self.partitions():
            with self._locked():
                for run in _runs_of_small(self.segments(partition)):
                    merged = pa.concat_tables([_read(segment) for segment in run])
                    directory = self._partition_directory(partition)
                    temporary = _write_durably(directory, merged)
                    temporary.rename(directory / _file_name(run[0].start, run[-1].end))
                    sync_directory(directory)
                removed += self._remove_superfluous(partition)
        return removed

    def _remove_superfluous(self, partition: int) -> int:
        """Deletes files inside of others, and what a crash left half-written. Needs the lock.

        Returns the number of the former.
        """
        kept = {segment.path for segment in self.segments(partition)}
        superfluous = [
            path
            for path in self._partition_directory(partition).iterdir()
            if _segment(path) and path not in kept
        ]
        for path in superfluous:
            path.unlink()
        remove_leftovers(self._partition_directory(partition), _WRITING)
        return len(superfluous)

    def _partition_directory(self, partition: int) -> Path:
        return self.directory / f"partition={partition}"

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / ".lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _file_name(start: int, end: int) -> str:
    return f"events-{start:020d}-{end:020d}.parquet"


def _segment(path: Path) -> Segment | None:
    match = _NAME.match(path.name)
    return Segment(path, int(match[1]), int(match[2])) if match else None


def _runs_of_small(segments: Sequence[Segment]) -> Iterator[list[Segment]]:
    """Runs of at least MANY_FILES small files."""
    grouped = itertools.groupby(segments, lambda found: found.path.stat().st_size < SMALL_BYTES)
    for small, group in grouped:
        run = list(group)
        if small and len(run) >= MANY_FILES:
            yield run


def _write_durably(directory: Path, table: pa.Table) -> Path:
    """Writes and fsyncs a file under a temporary name."""
    descriptor, name = tempfile.mkstemp(prefix=_WRITING, suffix=".parquet", dir=directory)
    try:
        with os.fdopen(descriptor, "wb") as file:
            pq.write_table(table, file, compression="zstd", write_page_checksum=True)
            file.flush()
            os.fsync(file.fileno())
        return Path(name)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _read(segment: Segment) -> pa.Table:
    """A file's rows, verified. Raises ArchiveError."""
    try:
        table = pq.ParquetFile(segment.path, page_checksum_verification=True).read()
    except (pa.ArrowException, OSError) as error:
        raise ArchiveError(f"{segment.path} is corrupt ({error}); {_REMEDY}") from None
    if not table.schema.equals(SCHEMA):
        raise ArchiveError(f"{segment.path} has other columns than this version; {_REMEDY}")
    offsets = table["offset"].to_numpy()
    if len(offsets) and not (
        segment.start <= offsets[0]
        and offsets[-1] < segment.end
        and (offsets[1:] > offsets[:-1]).all()
    ):
        raise ArchiveError(f"{segment.path} holds other offsets than its name says; {_REMEDY}")
    return table

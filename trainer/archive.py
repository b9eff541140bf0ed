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
_DICTIONARIES = ["user_id", "item_id", "type"]
_BATCH_ROWS = 65_536
_TRIES = 10
"""Listings without progress after which a scan gives up: one is needed each time a merge wins."""
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


class Rows(NamedTuple):
    """Some records of one partition, in offset order, as columns."""

    partition: int
    columns: pa.RecordBatch


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

    def window(self) -> dict[str, tuple[int, int]]:
        """Each partition's archived offsets [from, to)."""
        found = {str(partition): self.segments(partition) for partition in self.partitions()}
        return {name: (parts[0].start, parts[-1].end) for name, parts in found.items() if parts}

    def scan(
        self,
        columns: Sequence[str],
        window: Mapping[str, tuple[int, int]],
        *,
        since_ms: int = 0,
    ) -> Iterator[Rows]:
        """The records of the offsets in ``window``, by partition and offset, some at a time.

        The columns named and ``offset``; ids and types are dictionaries. What arrived before
        ``since_ms`` may be left out: row groups that are wholly older are. Memory is bounded by a
        row group's columns, whatever there is; other processes may commit and merge meanwhile.
        Raises ArchiveError for a file that is corrupt, or does not hold what its name says, and
        where offsets of the window are not there.
        """
        wanted = ["offset", *(name for name in columns if name != "offset")]
        for name, (start, end) in window.items():
            for batch in self._scan(int(name), wanted, start, end, since_ms):
                yield Rows(int(name), batch)

    def _scan(
        self, partition: int, columns: Sequence[str], start: int, end: int, since_ms: int
    ) -> Iterator[pa.RecordBatch]:
        at, tries = start, 0
        while at < end:
            tries += 1
            if tries > _TRIES:
                raise ArchiveError(f"{self._partition_directory(partition)} has no offset {at}")
            for segment in self.segments(partition):
                if not segment.start <= at < min(segment.end, end):
                    continue
                try:
                    file = _open(segment)
                except FileNotFoundError:
                    break  # a merge was quicker: the offsets stand in another file now
                with file:
                    yield from _batches(file, segment, columns, at, end, since_ms)
                at, tries = segment.end, 0

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
    """A file's rows, verified. Raises ArchiveError, FileNotFoundError."""
    with _open(segment) as file:
        batches = list(_batches(file, segment, SCHEMA.names, segment.start, segment.end, 0))
    return pa.Table.from_batches(batches, _with_dictionaries(SCHEMA.names)).cast(SCHEMA)


def _open(segment: Segment) -> pq.ParquetFile:
    """Raises ArchiveError, FileNotFoundError."""
    try:
        file = pq.ParquetFile(
            segment.path, page_checksum_verification=True, read_dictionary=_DICTIONARIES
        )
    except FileNotFoundError:
        raise
    except KeyError:  # one of the _DICTIONARIES is not in it
        raise _foreign(segment) from None
    except (pa.ArrowException, OSError) as error:
        raise _corrupt(segment, error) from None
    if not file.schema_arrow.equals(_with_dictionaries(SCHEMA.names)):
        file.close()
        raise _foreign(segment)
    return file


def _batches(
    file: pq.ParquetFile,
    segment: Segment,
    columns: Sequence[str],
    start: int,
    end: int,
    since_ms: int,
) -> Iterator[pa.RecordBatch]:
    """A file's rows of the offsets [start, end), verified. Raises ArchiveError."""
    groups = [group for group in range(file.num_row_groups) if _newest(file, group) >= since_ms]
    last = segment.start - 1
    try:
        for batch in file.iter_batches(_BATCH_ROWS, row_groups=groups, columns=list(columns)):
            offsets = batch.column("offset").to_numpy()
            if not len(offsets):
                continue
            if (
                offsets[0] <= last
                or offsets[-1] >= segment.end
                or (offsets[1:] <= offsets[:-1]).any()
            ):
                raise ArchiveError(
                    f"{segment.path} holds other offsets than its name says; {_REMEDY}"
                )
            last = int(offsets[-1])
            first, stop = offsets.searchsorted([start, end])
            if first < stop:
                yield batch.slice(first, stop - first).select(list(columns))
    except (pa.ArrowException, OSError) as error:
        raise _corrupt(segment, error) from None


def _newest(file: pq.ParquetFile, group: int) -> int:
    """The latest arrival in a row group by its statistics; far in the future without any."""
    column = SCHEMA.get_field_index("append_time_ms")
    statistics = file.metadata.row_group(group).column(column).statistics
    if statistics is None or not statistics.has_min_max:
        return 1 << 62
    return int(statistics.max)


def _corrupt(segment: Segment, error: Exception) -> ArchiveError:
    return ArchiveError(f"{segment.path} is corrupt ({error}); {_REMEDY}")


def _foreign(segment: Segment) -> ArchiveError:
    return ArchiveError(f"{segment.path} has other columns than this version; {_REMEDY}")


def _with_dictionaries(columns: Sequence[str]) -> pa.Schema:
    """SCHEMA's columns as a scan gives them."""
    fields = [SCHEMA.field(name) for name in columns]
    return pa.schema(
        field.with_type(pa.dictionary(pa.int32(), pa.string()))
        if field.name in _DICTIONARIES
        else field
        for field in fields
    )

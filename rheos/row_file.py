"""Files of rows: CSV, TSV or JSON lines, plain or compressed, read from the front."""

import csv
import gzip
import hashlib
import lzma
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

DELIMITERS = {".csv": ",", ".tsv": "\t"}
JSON_SUFFIXES = (".jsonl", ".ndjson")
COMPRESSED_SUFFIXES = (".xz", ".gz")
_DAMAGED = (OSError, EOFError, lzma.LZMAError, zlib.error)
_BYTE_ORDER_MARK = "\ufeff"


class RowFileError(ValueError):
    """A file that cannot be read as rows; the text names the file and what is needed."""


class Row(NamedTuple):
    """A row: its number in the file (the first is 0) and its bytes, line ends included.

    ``cells`` are a CSV row's by column; None in a file of JSON lines, and in what is no row: then
    ``problem`` says why.
    """

    number: int
    original: bytes
    cells: dict[str, str] | None
    problem: str = ""


class RowFile:
    """A file of rows. The kind follows from the name: ``.csv``, ``.tsv``, ``.jsonl`` or
    ``.ndjson``, then perhaps ``.xz`` or ``.gz``.

    CSV is UTF-8 with a header, or without one where ``columns`` names the columns; blank lines are
    no rows. Bytes that are no UTF-8 come out as lone surrogates, which no id may have.
    Everything here blocks on the disk and raises RowFileError.
    """

    def __init__(self, path: Path, columns: Sequence[str] = ()) -> None:
        self.path = path
        suffixes = [suffix.lower() for suffix in path.suffixes]
        self._compression = (
            suffixes.pop() if suffixes[-1:] and suffixes[-1] in COMPRESSED_SUFFIXES else ""
        )
        kind = suffixes[-1] if suffixes else ""
        self.is_json = kind in JSON_SUFFIXES
        if not self.is_json and kind not in DELIMITERS:
            known = " ".join((*DELIMITERS, *JSON_SUFFIXES))
            raise RowFileError(f"{path}: the name must end in {known}, then perhaps in .xz or .gz")
        self._delimiter = DELIMITERS.get(kind, "")
        self._columns = list(columns)
        self._raw: IO[bytes] | None = None
        try:
            self.size_bytes = path.stat().st_size
        except OSError as error:
            raise RowFileError(f"{path}: {error.strerror}") from None

    @property
    def bytes_read(self) -> int:
        """How far into the file, as it lies on the disk, the last ``rows()`` has come."""
        return self.size_bytes if self._raw is None or self._raw.closed else self._raw.tell()

    def sha256(self) -> str:
        """The hash of the file as it lies on the disk."""
        try:
            with self.path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise RowFileError(f"{self.path}: {error.strerror}") from None

    def columns(self) -> list[str]:
        """The names of a CSV file's columns; none of a file of JSON lines."""
        if self._columns or self.is_json:
            return self._columns
        try:
            with self._open() as lines:
                return self._header(_cells(lines, self._delimiter, []))
        except _DAMAGED as error:
            raise RowFileError(f"{self.path} is damaged: {error}") from None

    def count(self) -> int:
        """The number of rows; reads the whole file."""
        return sum(1 for _ in self.rows())

    def rows(self) -> Iterator[Row]:
        """The rows in the file's order. A file that is damaged raises when its end is missed."""
        read = self._json_rows if self.is_json else self._csv_rows
        try:
            with self._open() as lines:
                yield from read(lines)
        except _DAMAGED as error:
            raise RowFileError(f"{self.path} is damaged: {error}") from None

    def _json_rows(self, lines: Iterable[bytes]) -> Iterator[Row]:
        number = 0
        for line in lines:
            if not line.isspace():
                yield Row(number, line, None)
                number += 1

    def _csv_rows(self, lines: Iterable[bytes]) -> Iterator[Row]:
        taken: list[bytes] = []
        reader = _cells(lines, self._delimiter, taken)
        columns = self._columns or self._header(reader)
        taken.clear()
        number = 0
        while True:
            cells: list[str] | None = None
            problem = ""
            try:
                cells = next(reader, None)
            except csv.Error as error:
                problem = str(error)
            if not taken:
                return
            original = b"".join(taken)
            taken.clear()
            if cells is None:
                yield Row(number, original, None, problem)
            elif not cells:
                continue
            elif len(cells) != len(columns):
                problem = f"{len(cells)} cells where the header has {len(columns)}"
                yield Row(number, original, None, problem)
            else:
                yield Row(number, original, dict(zip(columns, cells, strict=True)))
            number += 1

    def _header(self, reader: Iterator[list[str]]) -> list[str]:
        try:
            cells = next(reader, [])
        except csv.Error as error:
            raise RowFileError(f"{self.path}: its first line is no header: {error}") from None
        # Excel's mark in front of UTF-8 is no part of the first column's name.
        return [cells[0].removeprefix(_BYTE_ORDER_MARK), *cells[1:]] if cells else []

    @contextmanager
    def _open(self) -> Iterator[Iterable[bytes]]:
        with self.path.open("rb") as self._raw:
            if self._compression == ".xz":
                with lzma.open(self._raw) as lines:
                    yield lines
            elif self._compression == ".gz":
                with gzip.open(self._raw) as lines:
                    yield lines
            else:
                yield self._raw


def _cells(lines: Iterable[bytes], delimiter: str, taken: list[bytes]) -> Iterator[list[str]]:
    """The csv module's rows; the lines that each was read from are appended to ``taken``."""

    def text() -> Iterator[str]:
        for line in lines:
            taken.append(line)
            yield line.decode("utf-8", "surrogateescape")

    return csv.reader(text(), delimiter=delimiter)

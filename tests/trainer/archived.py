"""What an archive holds, as one table."""

from collections.abc import Sequence
from typing import NamedTuple

import pyarrow as pa

from trainer.archive import SCHEMA, Archive


class Archived(NamedTuple):
    """``table`` has a row a record, by partition and offset, with its partition; ``window`` each
    partition's offsets.
    """

    table: pa.Table
    window: dict[str, tuple[int, int]]


def read(archive: Archive, columns: Sequence[str]) -> Archived:
    """All that is archived now, of the named columns. Raises ArchiveError."""
    window = archive.window()
    schema = pa.schema([*(SCHEMA.field(name) for name in columns), ("partition", pa.int32())])
    tables = [
        pa.table(
            {
                **{
                    name: rows.columns.column(name).cast(SCHEMA.field(name).type)
                    for name in columns
                },
                "partition": pa.array([rows.partition] * len(rows.columns), pa.int32()),
            },
            schema=schema,
        )
        for rows in archive.scan(columns, window)
    ]
    return Archived(pa.concat_tables(tables) if tables else schema.empty_table(), window)

"""What passes from the consumer to a partition."""

from collections.abc import Sequence
from typing import NamedTuple

from stream.record import Record


class Chunk(NamedTuple):
    """Records of one partition's log from offset ``begin`` up to, not including, ``next_offset``.

    All of the log's records in between that can be read; what is missing there are transaction
    markers, aborted records and what compaction removed. So there may be none at all. Chunks of one
    ``reading`` (the number given when reading began) join, or one of them went astray.
    """

    begin: int
    records: Sequence[Record]
    next_offset: int
    reading: int = 0

"""What a fold reads of a Kafka record."""

from typing import Protocol


class Record(Protocol):
    """A record as any client gives it. ``timestamp`` is its arrival, milliseconds since 1970."""

    @property
    def offset(self) -> int: ...

    @property
    def timestamp(self) -> int: ...

    @property
    def key(self) -> bytes | None: ...

    @property
    def value(self) -> bytes | None: ...

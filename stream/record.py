"""What a fold reads of a Kafka record, and the dead letter that it writes of one."""

from typing import Protocol

from rheos.state import MAX_DEAD_LETTER_BYTES, DeadLetter


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


def dead_letter(
    record: Record, topic: str, partition: int, reason: str, text: str, source: str = ""
) -> DeadLetter:
    """The letter for a record of ``topic[partition]`` that cannot be used."""
    key, value = record.key, record.value
    return DeadLetter(
        reason=reason,
        text=text,
        topic=topic,
        partition=partition,
        offset=record.offset,
        append_time_ms=record.timestamp,
        key=None if key is None else key[:MAX_DEAD_LETTER_BYTES],
        value=None if value is None else value[:MAX_DEAD_LETTER_BYTES],
        size=len(value or b""),
        source=source,
    )

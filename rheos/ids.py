"""User and item ids: what is accepted, and which Kafka partition an id belongs to."""

import re
from functools import lru_cache

from kafka.partitioner.default import murmur2

MAX_ID_BYTES = 256

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


def id_problem(value: str) -> str | None:
    """Why ``value`` is no id, or None: an id is 1-256 bytes of UTF-8 without control characters."""
    if value.isascii() and value.isprintable() and 0 < len(value) <= MAX_ID_BYTES:
        return None  # nearly every id; the rest of the checks are for the few others
    if not value:
        return "empty_id"
    try:
        size = len(value.encode())
    except UnicodeEncodeError:  # a lone surrogate: no UTF-8 has it
        return "not_unicode"
    if size > MAX_ID_BYTES:
        return "long_id"
    if _CONTROL.search(value):
        return "control_character"
    return None


def id_from_number(value: str) -> str:
    """The id behind a CSV cell: spreadsheets write whole numbers as ``17850.0``, not 17850."""
    head, dot, tail = value.partition(".")
    if dot and tail.strip("0") == "" and head.removeprefix("-").isdigit():
        return head
    return value


@lru_cache(maxsize=1 << 17)
def partition_of(key: str, partitions: int) -> int:
    """The partition of a key by Java's rule, murmur2(key) mod partitions (KIP-480 keeps it)."""
    return int((murmur2(key.encode()) & 0x7FFFFFFF) % partitions)

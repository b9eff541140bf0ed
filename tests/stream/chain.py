"""The smallest agent whose outcome shows a lost, doubled or misordered record: a chain of CRCs.

A key's state is its count and the CRC of all its values in order; each record is also sent on.
"""

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from rheos.settings import Settings, from_tree
from stream.agent import Agent, Changes, Output
from stream.record import Record
from tests.stream.kafka_log import Entry

POISON = b"poison"


class Link(msgspec.Struct, array_like=True):
    count: int
    crc: int


def chain_settings(bootstrap: str, prefix: str, **stream: Any) -> Settings:
    stream = {"port": 0, "session_timeout_s": 6, **stream}
    return from_tree({"kafka": {"bootstrap": bootstrap, "prefix": prefix}, "stream": stream})


def chain_topics(prefix: str, partitions: int = 1) -> dict[str, int]:
    return {
        f"{prefix}.in": partitions,
        f"{prefix}.state": partitions,
        f"{prefix}.out": 1,
        f"{prefix}.dead-letters": 1,
    }


def chain_agent(settings: Settings) -> Agent:
    prefix = settings.kafka.prefix

    def fold(records: Sequence[Record], state_of: Callable[[str], Any]) -> Changes:
        states: dict[str, Link] = {}
        outputs = []
        for record in records:
            assert record.key is not None
            assert record.value is not None
            if record.value == POISON:
                raise ZeroDivisionError("a record that nobody foresaw")
            key = record.key.decode()
            old = states.get(key) or state_of(key) or Link(0, 0)
            states[key] = Link(old.count + 1, zlib.crc32(record.value, old.crc))
            outputs.append(Output(f"{prefix}.out", 0, record.key, record.value))
        return Changes(states, outputs, accepted=len(outputs))

    return Agent(
        name="chain",
        input_topic=f"{prefix}.in",
        state_topic=f"{prefix}.state",
        interval_s=0.0,
        new_fold=lambda partition: fold,
        decode_state=msgspec.msgpack.Decoder(Link).decode,
    )


def chain_of(log: list[list[Entry]]) -> dict[str, Link]:
    """What the states must be after a log."""
    states: dict[str, Link] = {}
    for entries in log:
        for entry in entries:
            assert entry.key is not None
            assert entry.value is not None
            if entry.value != POISON:
                old = states.get(entry.key.decode(), Link(0, 0))
                states[entry.key.decode()] = Link(old.count + 1, zlib.crc32(entry.value, old.crc))
    return states


decode_link = msgspec.msgpack.Decoder(Link).decode

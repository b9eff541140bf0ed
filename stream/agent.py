"""An agent: what is done with the records of a topic, apart from Kafka and Faust."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from rheos.state import DeadLetter
from stream.record import Record, dead_letter


class Output(NamedTuple):
    """A record to write beside the state. The partition is always explicit."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes


class Changes(NamedTuple):
    """What a chunk changes and says. A state of None is gone: the user is forgotten."""

    states: Mapping[str, Any]
    outputs: Sequence[Output] = ()
    dead_letters: Sequence[DeadLetter] = ()
    accepted: int = 0
    duplicates: int = 0


class Fold(Protocol):
    """Pure but for the generation in service: records in log order to what they change.

    ``state_of`` gives the decoded state of a key, or None; what it gives is not changed.
    """

    def __call__(self, records: Sequence[Record], state_of: Callable[[str], Any], /) -> Changes: ...


@dataclass(frozen=True)
class Agent:
    """One kind of work. Partition p of ``input_topic`` has its state in p of ``state_topic``.

    ``new_fold`` makes the fold of a partition; ``decode_state`` is the inverse of
    ``rheos.state.encode_state``. At least ``interval_s`` lie between a partition's commits.
    """

    name: str
    input_topic: str
    state_topic: str
    interval_s: float
    new_fold: Callable[[int], Fold]
    decode_state: Callable[[bytes], Any]
    source: str = ""

    def dead_letter(self, partition: int, record: Record, reason: str, text: str) -> DeadLetter:
        """The letter for a record of a partition that cannot be used."""
        return dead_letter(record, self.input_topic, partition, reason, text, self.source)

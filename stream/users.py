"""The users fold: a chunk of event records in, changed user states and transitions out. Pure.

Imports neither Kafka nor Faust. tests/stream/reference_users.py says the same slowly.
"""

import sys
from array import array
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from rheos.events import Event, InvalidEvent, event_hash
from rheos.generation import Generation
from rheos.ids import partition_of
from rheos.settings import Settings
from rheos.state import DeadLetter, UserState, pack_vector
from rheos.topics import Topics
from stream.record import Record, dead_letter
from stream.transitions import TransitionPacker

ENCODE_AT_ONCE = 512  # users per encoder call: (512, 20, 64) float32 is 2.6 MB and stays in cache


class UserChanges(NamedTuple):
    """What one transaction of the users agent writes, the checkpoint aside."""

    states: dict[str, UserState]
    transitions: list[tuple[int, bytes]]
    dead_letters: list[DeadLetter]
    accepted: int
    duplicates: int


class UserFold:
    """Folds the records of one events partition. Holds settings only, no state between calls."""

    def __init__(self, settings: Settings, partition: int) -> None:
        self._rules = settings.event_rules()
        self._topic = Topics(settings).events
        self._partition = partition
        self._user_partitions = settings.kafka.events_partitions
        self._item_partitions = settings.kafka.items_partitions
        self._size = settings.history.size
        self._gap_ms = settings.history.session_gap_s * 1000
        self._window = max(settings.transitions.near_window, settings.transitions.far_window)

    def fold(
        self,
        records: Sequence[Record],
        state_of: Callable[[str], UserState | None],
        generation: Generation | None,
    ) -> UserChanges:
        """The changes that ``records``, in log order, make to the states that ``state_of`` gives.

        States given are not changed. Vectors are of ``generation``. Raises only what a record
        unforeseen by the contract causes.
        """
        users: dict[str, _User] = {}
        transitions = TransitionPacker(self._item_partitions)
        dead_letters: list[DeadLetter] = []
        accepted = duplicates = 0
        decode, weigh = self._rules.decode, self._rules.weight
        for record in records:
            try:
                event = decode(record.value, record.timestamp)
                user = users.get(event.user_id)
                if user is None:
                    user = self._open(event.user_id, state_of)
                    users[event.user_id] = user
            except InvalidEvent as error:
                dead_letters.append(
                    dead_letter(record, self._topic, self._partition, error.reason, str(error))
                )
                continue
            user.offset, user.append_time_ms = record.offset, record.timestamp
            name = event_hash(event).to_bytes(8, "little")
            if user.has_met(name):
                user.duplicates += 1
                duplicates += 1
                continue
            accepted += 1
            weight = weigh(event)
            position = user.insert(event, weight, name)
            # What a user turns down was not taken together with anything.
            earlier = (
                user.session_before(position, self._gap_ms, self._window) if weight > 0 else {}
            )
            transitions.add(event.item_id, weight, event.time_ms, record.timestamp, earlier)
            user.trim(self._size)
        return UserChanges(
            _states(users, generation),
            transitions.pack(),
            dead_letters,
            accepted,
            duplicates,
        )

    def _open(self, user_id: str, state_of: Callable[[str], UserState | None]) -> "_User":
        state = state_of(user_id)
        if state is not None:  # a user who is kept here belongs here: no need to hash the id
            return _User(state)
        home = partition_of(user_id, self._user_partitions)
        if home != self._partition:
            raise InvalidEvent(
                "wrong_partition",
                f"user {user_id[:80]!r} belongs to partition {home} of {self._user_partitions}"
                f" (murmur2 of the user id), not {self._partition}. Key events by user id; with"
                " librdkafka set partitioner=murmur2_random. For a topic with other keys declare it"
                " under [[sources]].",
            )
        return _User(UserState([], []))


class _User:
    """A user's state opened up into columns that grow, while a chunk is folded.

    Opening and closing them only copies bytes. Hashes stay bytes, eight each, to search in.
    """

    __slots__ = (
        "accepted",
        "append_time_ms",
        "changed",
        "duplicates",
        "event_hashes",
        "generation",
        "item_ids",
        "offset",
        "times_ms",
        "types",
        "vector",
        "weights",
    )

    def __init__(self, state: UserState) -> None:
        self.item_ids = list(state.item_ids)
        self.types = list(state.types)
        self.weights = _column("f", state.weights)
        self.times_ms = _column("q", state.times_ms)
        self.event_hashes = bytearray(state.event_hashes)
        self.generation = state.generation
        self.vector = state.vector
        self.offset = state.offset
        self.append_time_ms = state.append_time_ms
        self.accepted = state.accepted
        self.duplicates = state.duplicates
        self.changed = False  # the history, so the vector

    def has_met(self, name: bytes) -> bool:
        """Whether an event of this hash (8 bytes) is in the history."""
        place = self.event_hashes.find(name)
        while place % 8 and place >= 0:  # the end of one and the beginning of the next
            place = self.event_hashes.find(name, place + 1)
        return place >= 0

    def insert(self, event: Event, weight: float, name: bytes) -> int:
        """Puts an event at its place by time, after those of equal time; returns the place."""
        position = bisect_right(self.times_ms, event.time_ms)
        self.item_ids.insert(position, event.item_id)
        self.types.insert(position, event.type)
        self.weights.insert(position, weight)
        self.times_ms.insert(position, event.time_ms)
        self.event_hashes[8 * position : 8 * position] = name
        self.accepted += 1
        self.changed = True
        return position

    def session_before(self, position: int, gap_ms: int, window: int) -> dict[str, int]:
        """The items before ``position`` in its session and their distance, the nearest first.

        Each item once, at its nearest; neither the item itself nor what was turned down.
        """
        item_ids, weights, times_ms = self.item_ids, self.weights, self.times_ms
        item, later_ms, found = item_ids[position], times_ms[position], dict[str, int]()
        for place in range(position - 1, max(-1, position - 1 - window), -1):
            time_ms = times_ms[place]
            if later_ms - time_ms > gap_ms:
                break
            later_ms = time_ms
            other = item_ids[place]
            if other not in found and other != item and weights[place] > 0:
                found[other] = position - place
        return found

    def trim(self, size: int) -> None:
        """Keeps the ``size`` newest by time."""
        excess = len(self.item_ids) - size
        if excess > 0:
            for column in (self.item_ids, self.types, self.weights, self.times_ms):
                del column[:excess]
            del self.event_hashes[: 8 * excess]

    def state(self) -> UserState:
        return UserState(
            self.item_ids,
            self.types,
            _packed(self.weights),
            _packed(self.times_ms),
            bytes(self.event_hashes),
            self.generation,
            self.vector,
            self.offset,
            self.append_time_ms,
            self.accepted,
            self.duplicates,
        )


def _column(kind: str, data: bytes) -> "array[Any]":
    """Little-endian numbers as an array."""
    column = array(kind, data)
    if sys.byteorder == "big":
        column.byteswap()
    return column


def _packed(column: "array[Any]") -> bytes:
    """Inverse of ``_column``."""
    if sys.byteorder == "big":
        column = column[:]
        column.byteswap()
    return column.tobytes()


def _states(users: dict[str, _User], generation: Generation | None) -> dict[str, UserState]:
    states = {user_id: user.state() for user_id, user in users.items()}
    if generation is None:
        return states
    stale = [
        states[user_id]
        for user_id, user in users.items()
        if user.changed or user.generation != generation.name
    ]
    for start in range(0, len(stale), ENCODE_AT_ONCE):
        part = stale[start : start + ENCODE_AT_ONCE]
        vectors = generation.encoder.encode([state.history() for state in part])
        for state, vector in zip(part, vectors, strict=True):
            known = vector.any()
            state.vector = pack_vector(vector) if known else b""
            state.generation = generation.name if known else ""
    return states

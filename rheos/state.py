"""What the stream keeps and publishes: user and item state, transitions, dead letters, checkpoints.

All travel as msgpack arrays between our own workers; arrays inside are little-endian bytes.
"""

from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

Float32s = npt.NDArray[np.float32]
Float64s = npt.NDArray[np.float64]
Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]
UInt64s = npt.NDArray[np.uint64]

CHECKPOINT_KEY = b"\x00checkpoint"
"""Key of the checkpoint in a state topic; no id has a control character, so none is equal to it."""


class History(NamedTuple):
    """A user's bounded interactions, oldest first, as an encoder reads them. Arrays of length n."""

    item_ids: list[str]
    weights: Float32s
    times_ms: Int64s


class UserState(msgspec.Struct, array_like=True, gc=False):
    """One user: the history in columns of one length n (newest last), its vector, and counters.

    ``vector`` (d float32) belongs to ``generation``; both are empty before the first generation
    that knows one of the user's items. ``offset`` and ``append_time_ms`` are those of the last
    event in it (accepted or duplicate) in the user's partition of the events topic.
    """

    item_ids: list[str]
    types: list[str]
    weights: bytes = b""
    times_ms: bytes = b""
    event_hashes: bytes = b""
    generation: str = ""
    vector: bytes = b""
    offset: int = -1
    append_time_ms: int = 0
    accepted: int = 0
    duplicates: int = 0

    def history(self) -> History:
        return History(
            self.item_ids,
            np.frombuffer(self.weights, "<f4"),
            np.frombuffer(self.times_ms, "<i8"),
        )


class ItemState(msgspec.Struct, array_like=True, gc=False):
    """One item: how often it is taken, and what is taken near it in the same session.

    Sums are forward-decayed (Cormode et al. 2009): a weight w at time t counts
    w * 2**((t - L) / half_life), L = epoch * 64 half-lives, so decay costs nothing until an epoch
    ends and moving to the next epoch is a multiplication by an exact power of two: the sums do
    not depend on how the log was cut into chunks. ``popularity[h]`` has an epoch per half-life.

    ``neighbour_ids`` are the items of the near and far windows with their raw counts: ``near``
    weighs what follows 1/distance and what precedes half of that, inside a short window; ``far``
    halves with distance in both directions. The reader normalises.
    """

    interactions: int = 0
    popularity_epochs: bytes = b""
    popularity: bytes = b""
    neighbour_epoch: int = 0
    neighbour_ids: list[str] = []
    near: bytes = b""
    far: bytes = b""
    offset: int = -1
    append_time_ms: int = 0


class Transitions(msgspec.Struct, array_like=True):
    """A packed record of ``rheos.transitions``: what interactions mean for one partition's items.

    Row r says: at ``times_ms[r]`` the item ``items[targets[r]]`` was taken with ``weights[r]``,
    ``distances[r]`` steps after ``items[sources[r]]`` in the same session (negative: before it).
    Distance 0 is the interaction itself (source = target); popularity counts these. Each row's
    *source* belongs to the record's partition. Columns: int32 sources, targets, distances; float32
    weights; int64 times.
    """

    items: list[str]
    sources: bytes
    targets: bytes
    distances: bytes
    weights: bytes
    times_ms: bytes
    append_time_ms: int = 0


class Checkpoint(msgspec.Struct, array_like=True, frozen=True):
    """How far a state topic's partition has folded its input: the *next* input offset.

    ``topic_id`` and ``partitions`` are the input topic's; other ones mean another log.
    """

    next_offset: int
    topic_id: str
    partitions: int


class DeadLetter(msgspec.Struct, frozen=True, kw_only=True):
    """A refused record, as JSON: reason, text, place, and the original bytes (base64, first 64 kB).

    ``size`` is the original's full length in bytes; a cut one cannot be replayed.
    """

    reason: str
    text: str
    topic: str
    partition: int
    offset: int
    append_time_ms: int
    key: bytes | None
    value: bytes | None
    size: int
    source: str = ""

    @property
    def place(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"


MAX_DEAD_LETTER_BYTES = 64 * 1024
MAX_TRANSITIONS_BYTES = 256 * 1024

encode_state = msgspec.msgpack.Encoder().encode
decode_user_state = msgspec.msgpack.Decoder(UserState).decode
decode_item_state = msgspec.msgpack.Decoder(ItemState).decode
decode_transitions = msgspec.msgpack.Decoder(Transitions).decode
decode_checkpoint = msgspec.msgpack.Decoder(Checkpoint).decode
encode_dead_letter = msgspec.json.Encoder().encode
decode_dead_letter = msgspec.json.Decoder(DeadLetter).decode


def pack_vector(vector: Float32s) -> bytes:
    """A vector's wire form: little-endian float32."""
    return vector.astype("<f4", copy=False).tobytes()


def unpack_vector(data: bytes) -> Float32s:
    """The vector of ``pack_vector``; read-only, shares the memory of ``data``."""
    return np.frombuffer(data, "<f4")

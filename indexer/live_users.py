"""Users as the stream last wrote them: encoded bytes, decoded when a query reads them."""

import threading
from collections import OrderedDict
from collections.abc import Iterable

import msgspec
import numpy as np

from indexer.leaders import Leaders
from rheos.catalogue import UserAttributes
from rheos.generation import Generation
from rheos.state import Float32s, History, UserState, decode_user_state, unpack_vector

NOBODY = History([], np.zeros(0, np.float32), np.zeros(0, np.int64))

MOST_ACTIVE = 256  # users kept in order of their events, for who asks for some


class _Head(msgspec.Struct, array_like=True):
    """A UserState of which only the numbers that the view needs are decoded."""

    item_ids: msgspec.Raw
    types: msgspec.Raw
    weights: msgspec.Raw
    times_ms: bytes
    event_hashes: msgspec.Raw
    generation: msgspec.Raw
    vector: msgspec.Raw
    offset: int
    append_time_ms: int
    accepted: int = 0


_decode_head = msgspec.msgpack.Decoder(_Head).decode


class LiveUser:
    """A decoded user. A vector that is not the state's own is encoded once."""

    __slots__ = ("_encoded_again", "history", "state")

    def __init__(self, state: UserState) -> None:
        self.state = state
        self.history: History = state.history()
        self._encoded_again: tuple[str, UserAttributes | None, Float32s] | None = None

    def vector(self, generation: Generation, attributes: UserAttributes | None = None) -> Float32s:
        """The user's vector (dimensions,) in ``generation``, zeros where it knows nothing.

        The state's own, if it is of that generation; else, or where the generation reads the
        ``attributes``, of which the stream knows nothing, the history is encoded again.
        """
        if not generation.encoder.reads_attributes:
            attributes = None
        if attributes is None and self.state.generation == generation.name:
            return unpack_vector(self.state.vector)
        kept = self._encoded_again
        if kept is None or kept[:2] != (generation.name, attributes):
            vector = generation.encoder.encode([self.history], [attributes])[0]
            kept = (generation.name, attributes, vector)
            self._encoded_again = kept
        return kept[2]


class LiveUsers:
    """Users by id. One thread puts and removes, any number reads.

    ``cached`` bounds the decoded users: one with 100 interactions takes about 20 kB.
    """

    def __init__(self, cached: int = 5_000) -> None:
        self._states: dict[str, bytes] = {}
        self._activity: dict[str, int] = {}
        self._active: Leaders[str] = Leaders(MOST_ACTIVE, self._all_activity)
        self._cache: OrderedDict[str, LiveUser] = OrderedDict()
        self._cached = cached
        self._lock = threading.Lock()
        self.newest_event_ms = 0
        self.events_accepted = 0

    def __len__(self) -> int:
        return len(self._states)

    def put(self, user_id: str, encoded: bytes) -> int:
        """Takes a user's state and returns its append time. Raises msgspec.DecodeError."""
        head = _decode_head(encoded)
        if head.times_ms:  # ascending
            newest = int(np.frombuffer(head.times_ms[-8:], "<i8")[0])
            self.newest_event_ms = max(self.newest_event_ms, newest)
        with self._lock:  # a reader must not put an older user back into the cache
            self._states[user_id] = encoded
            self.events_accepted += head.accepted - self._activity.get(user_id, 0)
            self._activity[user_id] = head.accepted
            self._cache.pop(user_id, None)
        self._active.put(user_id, head.accepted)
        return head.append_time_ms

    def remove(self, user_id: str) -> None:
        with self._lock:
            self._states.pop(user_id, None)
            self.events_accepted -= self._activity.pop(user_id, 0)
            self._cache.pop(user_id, None)
        self._active.put(user_id, 0)

    def get(self, user_id: str) -> LiveUser | None:
        with self._lock:
            user = self._cache.get(user_id)
            if user is not None:
                self._cache.move_to_end(user_id)
                return user
            encoded = self._states.get(user_id)
        if encoded is None:
            return None
        user = LiveUser(decode_user_state(encoded))
        with self._lock:
            if self._states.get(user_id) is encoded:
                self._cache[user_id] = user
                if len(self._cache) > self._cached:
                    self._cache.popitem(last=False)
        return user

    def accepted(self, user_id: str) -> int:
        """How many events of a user were counted; 0 for an unknown one."""
        return self._activity.get(user_id, 0)

    def most_active(self, count: int) -> list[str]:
        """The ids of the users with the most accepted events, at most MOST_ACTIVE."""
        return self._active.top(count)

    def _all_activity(self) -> Iterable[tuple[str, float]]:
        with self._lock:
            return list(self._activity.items())

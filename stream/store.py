"""The local store: what this worker holds of a state partition, encoded, in memory."""

from collections.abc import Mapping
from typing import Protocol


class Store(Protocol):
    """One state partition's records up to ``position``, the next offset to read of it.

    ``topic_id`` is the state topic's: an offset means nothing in another topic of the same name.
    Used by one thread at a time. It may lag behind the state topic, which alone is the truth: a
    partition is caught up from ``position`` when it is opened.
    """

    @property
    def topic_id(self) -> str: ...

    @property
    def position(self) -> int: ...

    def get(self, key: str) -> bytes | None:
        """The value of a key, or None."""

    def put(self, changes: Mapping[str, bytes | None], position: int) -> None:
        """Takes changed values (None: gone) together with the new position."""

    def forget(self, topic_id: str) -> None:
        """Forgets all and stands at 0 of the state topic with this id."""


class MemoryStore:
    """A dict of encoded states."""

    def __init__(self) -> None:
        self.topic_id = ""
        self.position = 0
        self._values: dict[str, bytes] = {}

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: str) -> bytes | None:
        return self._values.get(key)

    def put(self, changes: Mapping[str, bytes | None], position: int) -> None:
        for key, value in changes.items():
            if value is None:
                self._values.pop(key, None)
            else:
                self._values[key] = value
        self.position = position

    def forget(self, topic_id: str) -> None:
        self.topic_id = topic_id
        self.position = 0
        self._values.clear()

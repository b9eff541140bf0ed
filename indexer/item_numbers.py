"""Item ids as dense numbers of one process: what query-time arrays are indexed by."""

import threading
from collections.abc import Iterable

import numpy as np

from rheos.state import Int64s


class ItemNumbers:
    """Numbers from 0 in order of first sight, never reused. Not a generation's rows.

    Any thread may ask; looking up a known id takes no lock.
    """

    def __init__(self) -> None:
        self._number_of: dict[str, int] = {}
        self._ids: list[str] = []
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, item_id: str) -> int:
        """The number of an id, a new one at its first sight."""
        number = self._number_of.get(item_id)
        if number is None:
            with self._lock:
                number = self._number_of.get(item_id)
                if number is None:
                    number = len(self._ids)
                    self._ids.append(item_id)
                    self._number_of[item_id] = number
        return number

    def add_all(self, item_ids: Iterable[str]) -> Int64s:
        """The numbers of ids (n,)."""
        return np.fromiter(map(self.add, item_ids), np.int64)

    def get(self, item_id: str) -> int | None:
        """The number of an id, or None if it was never seen."""
        return self._number_of.get(item_id)

    def id_of(self, number: int) -> str:
        return self._ids[number]

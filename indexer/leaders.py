"""The highest of many values that mostly rise, without sorting them all for each question."""

import threading
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

K = TypeVar("K", int, str)


class Leaders(Generic[K]):
    """The ``size`` keys with the highest values, exactly. Safe from any thread.

    A pool of at most 2 · size keys is kept and a floor that no key outside of the pool exceeds, so
    a rising value costs one comparison. Where falling values have emptied the pool, ``everything``
    (all keys and values) is read once again.
    """

    def __init__(self, size: int, everything: Callable[[], Iterable[tuple[K, float]]]) -> None:
        self._size = size
        self._everything: Callable[[], Iterable[tuple[K, float]]] = everything
        self._pool: dict[K, float] = {}
        self._floor = 0.0  # values are above 0; 0 stands for "not at all"
        self._sorted: list[K] | None = None
        self._lock = threading.Lock()

    def put(self, key: K, value: float) -> None:
        """Takes a key's new value; 0 removes it."""
        with self._lock:
            if value > self._floor:
                self._pool[key] = value
                if len(self._pool) > 2 * self._size:
                    self._cut()
            elif self._pool.pop(key, None) is None:
                return
            self._sorted = None

    def scale(self, factor: float) -> None:
        """Multiplies all values by a factor that keeps their order."""
        with self._lock:
            self._pool = {key: value * factor for key, value in self._pool.items()}
            self._floor *= factor

    def top(self, count: int) -> list[K]:
        """The ``count`` (at most ``size``) keys with the highest values, best first.

        Equal values: the smaller key first, but at the edge either may stand.
        """
        count = min(count, self._size)
        with self._lock:
            if len(self._pool) < count and self._floor > 0:
                self._pool, self._floor = {}, 0.0
                for key, value in self._everything():
                    if value > self._floor:
                        self._pool[key] = value
                        if len(self._pool) > 2 * self._size:
                            self._cut()
                self._sorted = None
            if self._sorted is None:
                self._sorted = sorted(self._pool, key=lambda key: (-self._pool[key], key))
            return self._sorted[:count]

    def _cut(self) -> None:
        """Keeps the best ``size``; what goes is at or below the new floor."""
        kept = sorted(self._pool, key=lambda key: (-self._pool[key], key))[: self._size]
        self._floor = max(self._pool[key] for key in self._pool.keys() - set(kept))
        self._pool = {key: self._pool[key] for key in kept}

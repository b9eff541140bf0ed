"""Transitions of a chunk: collected per interaction, packed per item partition. Pure."""

from array import array

import numpy as np

from rheos.ids import partition_of
from rheos.state import MAX_TRANSITIONS_BYTES, Int64s, Transitions, encode_state


class TransitionPacker:
    """Collects a chunk's interactions in log order; ``pack`` makes the records to send.

    Collecting is one dict look-up a pair; the rest is done over whole columns.
    """

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions
        self._index: dict[str, int] = {}
        self._items, self._weights = array("q"), array("f")
        self._times_ms, self._arrivals_ms = array("q"), array("q")
        self._pairs, self._pair_items = array("q"), array("q")
        self._pair_distances = array("i")

    def add(
        self,
        item: str,
        weight: float,
        time_ms: int,
        arrival_ms: int,
        earlier: dict[str, int],
    ) -> None:
        """One interaction and the earlier items of its session with their distances (above 0)."""
        index = self._index
        self._items.append(index.setdefault(item, len(index)))
        self._weights.append(weight)
        self._times_ms.append(time_ms)
        self._arrivals_ms.append(arrival_ms)
        self._pairs.append(len(earlier))
        if earlier:
            self._pair_items.extend([index.setdefault(other, len(index)) for other in earlier])
            self._pair_distances.extend(earlier.values())

    def pack(self) -> list[tuple[int, bytes]]:
        """(item partition, encoded Transitions of at most 256 kB), each partition in log order."""
        if not self._items:
            return []
        names = np.array(list(self._index), object)
        home = np.array([partition_of(name, self._partitions) for name in self._index])
        items = np.array(self._items)
        pair_events = np.repeat(np.arange(len(items)), self._pairs)
        earlier = np.array(self._pair_items)
        distances = np.array(self._pair_distances)
        pair_items = items[pair_events]
        # Each interaction itself, then each of its pairs seen from either end.
        events = np.concatenate([np.arange(len(items)), pair_events, pair_events])
        order = np.argsort(events, kind="stable")
        events = events[order]
        sources = np.concatenate([items, pair_items, earlier])[order]
        targets = np.concatenate([items, earlier, pair_items])[order]
        steps = np.concatenate([np.zeros(len(items), np.int32), -distances, distances])[order]
        packed = []
        for partition in range(self._partitions):
            rows = np.flatnonzero(home[sources] == partition)
            if len(rows):
                columns = sources[rows], targets[rows], steps[rows], events[rows]
                packed += [(partition, record) for record in self._records(names, *columns)]
        return packed

    def _records(
        self, names: np.ndarray, sources: Int64s, targets: Int64s, steps: Int64s, events: Int64s
    ) -> list[bytes]:
        used, local = np.unique(np.concatenate([sources, targets]), return_inverse=True)
        count = len(sources)
        record = encode_state(
            Transitions(
                names[used].tolist(),
                local[:count].astype("<i4").tobytes(),
                local[count:].astype("<i4").tobytes(),
                steps.astype("<i4").tobytes(),
                np.array(self._weights)[events].astype("<f4").tobytes(),
                np.array(self._times_ms)[events].astype("<i8").tobytes(),
                int(self._arrivals_ms[int(events[-1])]),
            )
        )
        if len(record) <= MAX_TRANSITIONS_BYTES or count == 1:
            return [record]
        half = count // 2
        return [
            *self._records(names, sources[:half], targets[:half], steps[:half], events[:half]),
            *self._records(names, sources[half:], targets[half:], steps[half:], events[half:]),
        ]

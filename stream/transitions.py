"""Transitions of a chunk: collected per interaction, packed per item partition. Pure."""

from array import array

import numpy as np

from rheos.ids import partition_of
from rheos.state import MAX_TRANSITIONS_BYTES, Int32s, Int64s, Transitions, encode_state


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
        home = np.array([partition_of(name, self._partitions) for name in self._index], np.int16)
        items, pairs = np.array(self._items, np.int32), np.array(self._pairs)
        events = np.arange(len(items))
        of_pairs = np.repeat(events, pairs)  # (P,) each pair's interaction
        mine, earlier = items[of_pairs], np.array(self._pair_items, np.int32)
        distances = np.array(self._pair_distances, np.int32)
        # Each interaction itself, then its pairs as seen from it, then from their other ends.
        counts = 1 + 2 * pairs
        first = np.cumsum(counts) - counts
        seen = first[of_pairs] + 1 + np.arange(len(of_pairs)) - (np.cumsum(pairs) - pairs)[of_pairs]
        seen_back = seen + pairs[of_pairs]
        total = int(counts.sum())
        sources, targets = np.empty(total, np.int32), np.empty(total, np.int32)
        steps = np.zeros(total, np.int32)
        sources[first], sources[seen], sources[seen_back] = items, mine, earlier
        targets[first], targets[seen], targets[seen_back] = items, earlier, mine
        steps[seen], steps[seen_back] = -distances, distances
        events = np.repeat(events, counts)

        homes = home[sources]
        order = np.argsort(homes, kind="stable")  # of 16 bits: a radix sort
        bounds = np.searchsorted(homes[order], np.arange(self._partitions + 1))
        packed = []
        for partition in range(self._partitions):
            rows = order[bounds[partition] : bounds[partition + 1]]
            if len(rows):
                columns = sources[rows], targets[rows], steps[rows], events[rows]
                packed += [(partition, record) for record in self._records(names, *columns)]
        return packed

    def _records(
        self, names: np.ndarray, sources: Int32s, targets: Int32s, steps: Int32s, events: Int64s
    ) -> list[bytes]:
        met = np.zeros(len(names), bool)
        met[sources] = met[targets] = True
        local = np.cumsum(met, dtype="<i4") - 1  # an item's place among those met
        count = len(sources)
        record = encode_state(
            Transitions(
                names[met].tolist(),
                local[sources].tobytes(),
                local[targets].tobytes(),
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

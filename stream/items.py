"""The items fold: packed transitions in, changed item states out. Pure.

Imports neither Kafka nor Faust. tests/stream/reference_items.py says the same slowly, row by row;
sums here equal its sums to the bit, however the log is cut into chunks (rheos/decay.py).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from rheos import decay
from rheos.settings import Settings
from rheos.state import (
    Float32s,
    Float64s,
    Int32s,
    Int64s,
    ItemState,
    decode_transitions,
)
from stream.record import Record

_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS


class ItemFold:
    """Folds the records of one transitions partition. Holds settings only, no state."""

    def __init__(self, settings: Settings) -> None:
        windows = settings.transitions
        self._near_window = windows.near_window
        self._far_window = windows.far_window
        self._far_half_steps = windows.far_half_steps
        self._half_life_ms = round(windows.half_life_days * _DAY_MS)
        self._trend_half_lives_ms = [round(h * _HOUR_MS) for h in settings.trend.half_lives_hours]
        self._kept = windows.neighbours

    def fold(
        self, records: Sequence[Record], state_of: Callable[[str], ItemState | None]
    ) -> dict[str, ItemState]:
        """The states that ``records``, in log order, change; those given are not changed.

        Raises msgspec.DecodeError for a record that is no Transitions.
        """
        rows = _unpack(records)
        if rows is None:
            return {}
        # Stable: each source's rows stay in log order, so its sums do not depend on the chunk.
        rows = rows.taken(np.argsort(rows.sources, kind="stable"))
        starts = np.flatnonzero(np.r_[True, rows.sources[1:] != rows.sources[:-1]])
        ends = np.r_[starts[1:], len(rows.sources)]
        touched = [rows.items[row] for row in rows.sources[starts]]
        states = [state_of(item) or ItemState() for item in touched]
        owners = np.repeat(np.arange(len(starts)), ends - starts)

        counts = np.bincount(owners[rows.distances == 0], minlength=len(starts))
        epochs, sums = self._popularity(states, rows, owners)
        tables = self._neighbours(states, rows, owners)
        return {
            item: ItemState(
                states[place].interactions + int(counts[place]),
                epochs[place].tobytes(),
                sums[place].tobytes(),
                tables[place].epoch,
                tables[place].ids,
                tables[place].near.tobytes(),
                tables[place].far.tobytes(),
                records[rows.records[ends[place] - 1]].offset,
                int(rows.arrivals_ms[ends[place] - 1]),
            )
            for place, item in enumerate(touched)
        }

    def _popularity(
        self, states: list[ItemState], rows: "_Rows", owners: Int64s
    ) -> tuple[Int64s, Float64s]:
        """Epochs and sums after the rows, (touched, half-lives) each. owners: rows' states."""
        shape = (len(states), len(self._trend_half_lives_ms))
        epochs, sums = np.zeros(shape, "<i8"), np.zeros(shape, "<f8")
        for place, state in enumerate(states):
            if state.popularity:
                epochs[place] = np.frombuffer(state.popularity_epochs, "<i8")
                sums[place] = np.frombuffer(state.popularity, "<f8")
        taken = rows.distances == 0
        owners, times_ms = owners[taken], rows.times_ms[taken]
        # What a user turned down is counted, but makes nothing popular.
        weights = np.maximum(rows.weights[taken], 0).astype(np.float64)
        for column, half_life_ms in enumerate(self._trend_half_lives_ms):
            theirs = decay.epochs_of(times_ms, half_life_ms)
            latest = epochs[:, column].copy()
            np.maximum.at(latest, owners, theirs)
            sums[:, column] *= decay.shift(latest - epochs[:, column])
            epochs[:, column] = latest
            grown = weights * decay.growth(times_ms, half_life_ms)
            grown *= decay.shift(latest[owners] - theirs)
            # add.at goes row by row in order: the same sum, to the bit, for every chunking
            np.add.at(sums[:, column], owners, grown)
        return epochs, sums

    def _neighbours(self, states: list[ItemState], rows: "_Rows", owners: Int64s) -> "list[_Table]":
        pairs = rows.distances != 0
        owners, targets = owners[pairs], rows.targets[pairs]
        distances, times = rows.distances[pairs], rows.times_ms[pairs]
        weights = rows.weights[pairs].astype(np.float64)
        steps = np.abs(distances)
        # What follows counts fully, what precedes by half: a next-list is read forwards.
        near = np.where(steps <= self._near_window, 1.0 / steps, 0.0) * weights
        near *= np.where(distances > 0, 1.0, 0.5)
        far = np.exp2(-(steps - 1) / self._far_half_steps) * weights
        far[steps > self._far_window] = 0.0
        bounds = np.searchsorted(owners, np.arange(len(states) + 1))
        tables = []
        for place, state in enumerate(states):
            low, high = bounds[place], bounds[place + 1]
            table = _Table.opened(state)
            if low < high:
                table.add(
                    [rows.items[target] for target in targets[low:high]],
                    near[low:high],
                    far[low:high],
                    times[low:high],
                    self._half_life_ms,
                    self._kept,
                )
            tables.append(table)
        return tables


class _Rows(NamedTuple):
    """The rows of several records, item indexes made common. Columns of one length."""

    items: list[str]
    sources: Int32s
    targets: Int32s
    distances: Int32s
    weights: Float32s
    times_ms: Int64s
    records: Int32s
    arrivals_ms: Int64s

    def taken(self, order: Int64s) -> "_Rows":
        return _Rows(
            self.items,
            self.sources[order],
            self.targets[order],
            self.distances[order],
            self.weights[order],
            self.times_ms[order],
            self.records[order],
            self.arrivals_ms[order],
        )


def _unpack(records: Sequence[Record]) -> _Rows | None:
    """All records' rows in log order, or None where there are none."""
    index: dict[str, int] = {}
    packed = [decode_transitions(record.value or b"") for record in records]
    if not packed:
        return None
    common = [
        np.array([index.setdefault(item, len(index)) for item in one.items], np.int32)
        for one in packed
    ]
    sources = [
        of[np.frombuffer(one.sources, "<i4")] for of, one in zip(common, packed, strict=True)
    ]
    targets = [
        of[np.frombuffer(one.targets, "<i4")] for of, one in zip(common, packed, strict=True)
    ]
    lengths = [len(rows) for rows in sources]
    return _Rows(
        list(index),
        np.concatenate(sources),
        np.concatenate(targets),
        np.concatenate([np.frombuffer(one.distances, "<i4") for one in packed]),
        np.concatenate([np.frombuffer(one.weights, "<f4") for one in packed]),
        np.concatenate([np.frombuffer(one.times_ms, "<i8") for one in packed]),
        np.repeat(np.arange(len(packed), dtype=np.int32), lengths),
        np.repeat(np.array([one.append_time_ms for one in packed], np.int64), lengths),
    )


class _Table:
    """An item's neighbours opened up while a chunk is folded."""

    __slots__ = ("epoch", "far", "ids", "near")

    def __init__(self, epoch: int, ids: list[str], near: Float64s, far: Float64s) -> None:
        self.epoch, self.ids, self.near, self.far = epoch, ids, near, far

    @classmethod
    def opened(cls, state: ItemState) -> "_Table":
        return cls(
            state.neighbour_epoch,
            list(state.neighbour_ids),
            np.frombuffer(state.near, "<f8"),
            np.frombuffer(state.far, "<f8"),
        )

    def add(
        self,
        targets: list[str],
        near: Float64s,
        far: Float64s,
        times_ms: Int64s,
        half_life_ms: int,
        kept: int,
    ) -> None:
        """Adds rows in order. Whenever more than 2 · ``kept`` neighbours stand, only the ``kept``
        strongest stay: by far, then near, then the smaller id."""
        start = 0
        while start < len(targets):
            place_of = {item: place for place, item in enumerate(self.ids)}
            places = []
            for item in targets[start:]:
                places.append(place_of.setdefault(item, len(place_of)))
                if len(place_of) > 2 * kept:  # up to here, then cut, then on with the rest
                    break
            rows = slice(start, start + len(places))
            self._add_rows(
                list(place_of),
                np.array(places),
                near[rows],
                far[rows],
                times_ms[rows],
                half_life_ms,
            )
            if len(self.ids) > 2 * kept:
                self._cut(kept)
            start += len(places)

    def _add_rows(
        self,
        ids: list[str],
        places: Int64s,
        near: Float64s,
        far: Float64s,
        times_ms: Int64s,
        half_life_ms: int,
    ) -> None:
        """``ids`` begin with the present ones; row r adds to ids[places[r]]."""
        theirs = decay.epochs_of(times_ms, half_life_ms)
        latest = max(self.epoch, int(theirs.max()))
        moved = float(decay.shift(latest - self.epoch))
        new = np.zeros(len(ids) - len(self.ids))
        self.near = np.append(self.near * moved, new)
        self.far = np.append(self.far * moved, new)
        grown = decay.growth(times_ms, half_life_ms) * decay.shift(latest - theirs)
        np.add.at(self.near, places, near * grown)
        np.add.at(self.far, places, far * grown)
        self.ids, self.epoch = ids, latest

    def _cut(self, kept: int) -> None:
        def strength(place: int) -> tuple[float, float, str]:
            return -self.far[place], -self.near[place], self.ids[place]

        stay = sorted(sorted(range(len(self.ids)), key=strength)[:kept])
        self.ids = [self.ids[place] for place in stay]
        self.near, self.far = self.near[stay], self.far[stay]

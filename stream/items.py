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


_Columns = tuple[list[str], bytes, bytes]  # neighbour ids, near, far


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
        touched = [rows.items[row] for row in rows.sources[starts].tolist()]
        states = [state_of(item) or ItemState() for item in touched]
        owners = np.repeat(np.arange(len(starts)), ends - starts)

        counts = np.bincount(owners[rows.distances == 0], minlength=len(starts)).tolist()
        epochs, sums = self._popularity(states, rows, owners)
        tables = self._neighbours(states, rows, owners)
        epoch_bytes, sum_bytes, width = epochs.tobytes(), sums.tobytes(), 8 * epochs.shape[1]
        last_records = rows.records[ends - 1].tolist()
        arrivals_ms = rows.arrivals_ms[ends - 1].tolist()
        return {
            item: ItemState(
                states[place].interactions + counts[place],
                epoch_bytes[place * width : (place + 1) * width],
                sum_bytes[place * width : (place + 1) * width],
                *tables[place],
                records[last_records[place]].offset,
                arrivals_ms[place],
            )
            for place, item in enumerate(touched)
        }

    def _popularity(
        self, states: list[ItemState], rows: "_Rows", owners: Int64s
    ) -> tuple[Int64s, Float64s]:
        """Epochs and sums after the rows, (touched, half-lives) each. owners: rows' states."""
        shape = (len(states), len(self._trend_half_lives_ms))
        zeros = bytes(8 * shape[1])
        epochs = _joined([state.popularity_epochs or zeros for state in states], "<i8", shape)
        sums = _joined([state.popularity or zeros for state in states], "<f8", shape)
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

    def _neighbours(
        self, states: list[ItemState], rows: "_Rows", owners: Int64s
    ) -> list[tuple[int, list[str], bytes, bytes]]:
        """Each table's epoch and columns after the rows. owners: rows' states, ascending."""
        pairs = rows.distances != 0
        owners, times_ms = owners[pairs], rows.times_ms[pairs]
        near, far = self._counts(rows.distances[pairs], rows.weights[pairs])
        targets = [rows.items[target] for target in rows.targets[pairs].tolist()]
        # All told from the landmark of the latest epoch that a table meets in these rows.
        before = np.array([state.neighbour_epoch for state in states])
        theirs, latest = decay.epochs_of(times_ms, self._half_life_ms), before.copy()
        np.maximum.at(latest, owners, theirs)
        grown = decay.growth(times_ms, self._half_life_ms) * decay.shift(latest[owners] - theirs)
        near, far = near * grown, far * grown
        moved = decay.shift(latest - before)

        flat, cut = _FlatTables(), dict[int, _CutTable]()
        bounds = np.searchsorted(owners, np.arange(len(states) + 1)).tolist()
        for place, state in enumerate(states):
            mine = slice(bounds[place], bounds[place + 1])
            place_of = {item: at for at, item in enumerate(state.neighbour_ids)}
            places = [place_of.setdefault(item, len(place_of)) for item in targets[mine]]
            if len(place_of) <= 2 * self._kept:
                flat.add(state, list(place_of), moved[place], places, near[mine], far[mine])
            else:
                table = _CutTable(state, moved[place])
                table.add(targets[mine], near[mine], far[mine], self._kept)
                cut[place] = table
        kept = iter(flat.columns())
        return [
            (int(latest[place]), *(cut[place].columns() if place in cut else next(kept)))
            for place in range(len(states))
        ]

    def _counts(self, distances: Int32s, weights: Float32s) -> tuple[Float64s, Float64s]:
        """What a row adds to the near and the far count of its pair, before decay."""
        steps = np.abs(distances)
        # What follows counts fully, what precedes by half: a next-list is read forwards.
        near = np.where(steps <= self._near_window, 1.0 / steps, 0.0) * weights.astype(np.float64)
        near *= np.where(distances > 0, 1.0, 0.5)
        far = np.exp2(-(steps - 1) / self._far_half_steps) * weights.astype(np.float64)
        far[steps > self._far_window] = 0.0
        return near, far


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


class _FlatTables:
    """Tables that are not cut, one after another in flat arrays: a few calls add all their rows."""

    def __init__(self) -> None:
        self._ids: list[list[str]] = []
        self._moved: list[float] = []
        self._places: list[int] = []
        self._added: list[int] = []
        self._sums: tuple[list[bytes], list[bytes]] = [], []
        self._counts: tuple[list[Float64s], list[Float64s]] = [], []

    def add(
        self,
        state: ItemState,
        ids: list[str],
        moved: float,
        places: list[int],
        near: Float64s,
        far: Float64s,
    ) -> None:
        """A table whose sums are multiplied by ``moved``; then row r adds to ids[places[r]].

        ``ids`` begin with the state's own.
        """
        new = bytes(8 * (len(ids) - len(state.neighbour_ids)))
        self._ids.append(ids)
        self._moved.append(moved)
        self._places += places
        self._added.append(len(places))
        for parts, sums in zip(self._sums, (state.near, state.far), strict=True):
            parts += (sums, new)
        for columns, counts in zip(self._counts, (near, far), strict=True):
            columns.append(counts)

    def columns(self) -> list[_Columns]:
        """ids, near, far of each table in the order of ``add``."""
        lengths = np.array([len(ids) for ids in self._ids], np.int64)
        starts = np.cumsum(lengths) - lengths
        at = np.array(self._places, np.int64) + np.repeat(starts, self._added)
        factors = np.repeat(self._moved, lengths)
        packed = []
        for parts, counts in zip(self._sums, self._counts, strict=True):
            sums = np.frombuffer(b"".join(parts), "<f8") * factors
            # add.at goes row by row in order: the same sum, to the bit, for every chunking
            np.add.at(sums, at, np.concatenate([*counts, np.zeros(0)]))
            packed.append(sums.tobytes())
        bounds = (8 * np.append(starts, lengths.sum())).tolist()
        near, far = packed
        return [
            (ids, near[low:high], far[low:high])
            for ids, low, high in zip(self._ids, bounds[:-1], bounds[1:], strict=True)
        ]


class _CutTable:
    """A table that is cut while rows are added: whenever more than 2 · ``kept`` neighbours stand,
    only the ``kept`` strongest stay: by far, then near, then the smaller id.
    """

    def __init__(self, state: ItemState, moved: float) -> None:
        self._ids = list(state.neighbour_ids)
        self._near = np.frombuffer(state.near, "<f8") * moved
        self._far = np.frombuffer(state.far, "<f8") * moved

    def add(self, targets: list[str], near: Float64s, far: Float64s, kept: int) -> None:
        """Adds rows in order."""
        start = 0
        while start < len(targets):
            place_of = {item: place for place, item in enumerate(self._ids)}
            places = []
            for item in targets[start:]:
                places.append(place_of.setdefault(item, len(place_of)))
                if len(place_of) > 2 * kept:  # up to here, then cut, then on with the rest
                    break
            new = np.zeros(len(place_of) - len(self._ids))
            self._ids = list(place_of)
            self._near, self._far = np.append(self._near, new), np.append(self._far, new)
            rows = slice(start, start + len(places))
            np.add.at(self._near, places, near[rows])
            np.add.at(self._far, places, far[rows])
            if len(self._ids) > 2 * kept:
                self._cut(kept)
            start += len(places)

    def _cut(self, kept: int) -> None:
        by_id = np.array(sorted(range(len(self._ids)), key=self._ids.__getitem__))
        # Stable: where far and near are equal, the order by id stays.
        strongest = by_id[np.lexsort((-self._near[by_id], -self._far[by_id]))]
        stay = np.sort(strongest[:kept])
        self._ids = [self._ids[place] for place in stay.tolist()]
        self._near, self._far = self._near[stay], self._far[stay]

    def columns(self) -> _Columns:
        return self._ids, self._near.tobytes(), self._far.tobytes()


def _joined(parts: list[bytes], kind: str, shape: tuple[int, int]) -> np.ndarray:
    """A writable array of ``shape`` from its rows' bytes."""
    return np.frombuffer(bytearray(b"".join(parts)), kind).reshape(shape)

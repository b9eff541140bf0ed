"""Interactions as arrays: what models are fitted on and judged with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rheos.catalogue import Item, UserAttributes
from rheos.events import Event, EventRules
from rheos.settings import FeatureSettings
from rheos.state import Float32s, Int32s, Int64s, UInt64s
from trainer.archive import Archive

Mask = npt.NDArray[np.bool_]

_COLUMNS = (
    *("offset", "append_time_ms", "event_hash", "user_id", "item_id"),
    *("type", "time_ms", "value"),
)


@dataclass(frozen=True)
class DataSet:
    """n interactions, each counted once, sorted by (user, event time, event hash).

    ``users`` and ``items`` are rows into the sorted id lists. Interactions of one user at the same
    time stand in the order of their hashes, a shuffle that is the same on every machine: the order
    in which a file or a log gives equal times says more than any live stream would, and nothing
    here may learn from it. ``append_times_ms``, ``partitions`` and ``offsets`` tell when and where
    each arrived; ``window`` the archived offsets [from, to) of each partition of ``topic_id``.
    ``items_known`` and ``users_known`` are the catalogue's records by id, as far as there are any;
    ``features`` is what models may read of them.
    """

    user_ids: list[str]
    item_ids: list[str]
    users: Int32s
    items: Int32s
    weights: Float32s
    times_ms: Int64s
    append_times_ms: Int64s
    partitions: Int32s
    offsets: Int64s
    topic_id: str = ""
    window: dict[str, tuple[int, int]] = field(default_factory=dict)
    items_known: Mapping[str, Item] = field(default_factory=dict)
    users_known: Mapping[str, UserAttributes] = field(default_factory=dict)
    features: FeatureSettings = field(default_factory=FeatureSettings)

    def __len__(self) -> int:
        return len(self.users)

    def where(self, mask: Mask) -> Self:
        """The interactions under a mask, with the ids that are left and their own rows."""
        kept = self.keeping(mask)
        users, user_rows = np.unique(kept.users, return_inverse=True)
        items, item_rows = np.unique(kept.items, return_inverse=True)
        return replace(
            kept,
            user_ids=[self.user_ids[row] for row in users],
            item_ids=[self.item_ids[row] for row in items],
            users=user_rows.astype(np.int32),
            items=item_rows.astype(np.int32),
        )

    def keeping(self, mask: Mask) -> Self:
        """The interactions under a mask, with all ids and the same rows."""
        return replace(
            self,
            users=self.users[mask],
            items=self.items[mask],
            weights=self.weights[mask],
            times_ms=self.times_ms[mask],
            append_times_ms=self.append_times_ms[mask],
            partitions=self.partitions[mask],
            offsets=self.offsets[mask],
        )

    def first_of_pairs(self) -> Mask:
        """Whether an interaction is its user's first with its item, in this order."""
        keys = self.users.astype(np.int64) * max(1, len(self.item_ids)) + self.items
        first = np.zeros(len(self), bool)
        first[np.unique(keys, return_index=True)[1]] = True
        return first

    def popularity(self) -> Float32s:
        """Interactions per item (N,), those of a negative weight left out."""
        counted = np.bincount(self.items[self.weights > 0], minlength=len(self.item_ids))
        return counted.astype(np.float32)

    def begins(self) -> Int64s:
        """Where each user's interactions begin (U + 1,); the user u has begins[u]:begins[u + 1]."""
        return np.searchsorted(self.users, np.arange(len(self.user_ids) + 1)).astype(np.int64)


class Pairs(NamedTuple):
    """Distinct (user, item) pairs, by user and then item: how often, and with what mean weight."""

    users: Int32s
    items: Int32s
    counts: Int32s
    mean_weights: Float32s


def pairs(data: DataSet) -> Pairs:
    """The distinct (user, item) pairs of a data set."""
    keys = data.users.astype(np.int64) * len(data.item_ids) + data.items
    distinct, place, counts = np.unique(keys, return_inverse=True, return_counts=True)
    sums = np.bincount(place, weights=data.weights, minlength=len(distinct))
    users, items = np.divmod(distinct, max(1, len(data.item_ids)))
    return Pairs(
        users.astype(np.int32),
        items.astype(np.int32),
        counts.astype(np.int32),
        (sums / np.maximum(counts, 1)).astype(np.float32),
    )


def of_interactions(
    user_ids: Sequence[str],
    item_ids: Sequence[str],
    times_ms: Sequence[int] | Int64s,
    weights: Sequence[float] | Float32s | None = None,
) -> DataSet:
    """A data set from columns of one length that no log stands behind (splits, tests).

    Each row counts; rows of one user and time are put in an order of chance (seed 0).
    """
    count = len(user_ids)
    draws = np.random.default_rng(0).integers(0, 1 << 63, count, np.int64).astype(np.uint64)
    return _sorted(
        pa.chunked_array([pa.array(user_ids, pa.string())]),
        pa.chunked_array([pa.array(item_ids, pa.string())]),
        draws,
        np.ones(count, np.float32) if weights is None else np.asarray(weights, np.float32),
        np.asarray(times_ms, np.int64),
        np.asarray(times_ms, np.int64),
        np.zeros(count, np.int32),
        np.arange(count, dtype=np.int64),
    )


def load(archive: Archive, rules: EventRules) -> DataSet:
    """The whole archive as a data set: cleaned, deduplicated, weighed.

    Events of a type that the settings no longer know are left out. Of a user's events with the
    same hash the first to arrive counts, as in the stream. Raises ArchiveError.
    """
    table, window = archive.read(_COLUMNS)
    weights, known = _weigh(table, rules)
    data = _sorted(
        table["user_id"].filter(pa.array(known)),
        table["item_id"].filter(pa.array(known)),
        table["event_hash"].to_numpy()[known],
        weights[known],
        table["time_ms"].to_numpy()[known],
        table["append_time_ms"].to_numpy()[known],
        table["partition"].to_numpy()[known],
        table["offset"].to_numpy()[known],
    )
    return replace(data, topic_id=archive.topic_id, window=window)


def _weigh(table: pa.Table, rules: EventRules) -> tuple[Float32s, Mask]:
    """Each row's weight by ``EventRules.weight``, and whether its type is known."""
    types = table["type"].combine_chunks().dictionary_encode()
    names = types.dictionary.to_pylist()
    codes = types.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    if not len(codes):
        return np.zeros(0, np.float32), np.zeros(0, bool)
    weights = np.array([rules.weights.get(name, 0.0) for name in names])[codes]
    known = np.array([name in rules.weights for name in names])[codes]
    values = table["value"].to_numpy()
    rated = known & np.array([name == "rating" for name in names])[codes]
    distinct, place = np.unique(values[rated], return_inverse=True)
    weights[rated] = np.array([rules.weight(_rating(value)) for value in distinct])[place]
    return weights.astype(np.float32), known


def _rating(value: float) -> Event:
    return Event(user_id="", item_id="", type="rating", time_ms=0, value=value)


def _sorted(
    user_ids: pa.ChunkedArray,
    item_ids: pa.ChunkedArray,
    event_hashes: UInt64s,
    weights: Float32s,
    times_ms: Int64s,
    append_times_ms: Int64s,
    partitions: Int32s,
    offsets: Int64s,
) -> DataSet:
    user_names, users = _numbered(user_ids)
    item_names, items = _numbered(item_ids)
    first = _first_arrivals(users, event_hashes, offsets)
    order = first[np.lexsort((event_hashes[first], times_ms[first], users[first]))]
    data = DataSet(
        user_names,
        item_names,
        users[order],
        items[order],
        weights[order],
        times_ms[order],
        append_times_ms[order],
        partitions[order],
        offsets[order],
    )
    # An item may stand in a repeated event only: then it has no row.
    return data if len(order) == len(users) else data.where(np.ones(len(order), bool))


def _first_arrivals(users: Int32s, event_hashes: UInt64s, offsets: Int64s) -> Int64s:
    """Which rows count: of a user's rows with one hash the one of the lowest offset.

    A user has one partition, so that offsets order all of her events.
    """
    order = np.lexsort((offsets, event_hashes, users))
    repeats = np.zeros(len(order), bool)
    repeats[1:] = (np.diff(users[order]) == 0) & (
        event_hashes[order][1:] == event_hashes[order][:-1]
    )
    return order[~repeats]


def _numbered(ids: pa.ChunkedArray) -> tuple[list[str], Int32s]:
    """The distinct ids, sorted, and each row's number in them."""
    encoded = ids.combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.combine_chunks()
    names: list[str] = encoded.dictionary.to_pylist()
    order = sorted(range(len(names)), key=names.__getitem__)
    rank = np.empty(len(names), np.int32)
    rank[order] = np.arange(len(names), dtype=np.int32)
    codes = encoded.indices.to_numpy(zero_copy_only=False)
    return [names[number] for number in order], rank[codes]

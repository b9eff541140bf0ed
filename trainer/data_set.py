"""Interactions as arrays: what models are fitted on and judged with."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute

from rheos.catalogue import Item, UserAttributes
from rheos.events import Event, EventRules
from rheos.settings import FeatureSettings
from rheos.state import Float32s, History, Int32s, Int64s, UInt64s
from trainer.archive import Archive

Mask = npt.NDArray[np.bool_]

_COLUMNS = (
    *("offset", "append_time_ms", "event_hash", "user_id", "item_id"),
    *("type", "time_ms", "value"),
)
_DTYPES = {
    "users": np.int32,
    "items": np.int32,
    "event_hashes": np.uint64,
    "weights": np.float32,
    "times_ms": np.int64,
    "append_times_ms": np.int64,
    "partitions": np.int32,
    "offsets": np.int64,
}
"""The columns of interactions on their way to a data set: 48 bytes each."""


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

    def history(self, places: slice | Int64s) -> History:
        """Some interactions of one user, in their order here, as an encoder reads them."""
        items = [self.item_ids[row] for row in self.items[places].tolist()]
        return History(items, self.weights[places], self.times_ms[places])

    def histories(self, at_once: int) -> Iterator[tuple[slice, list[History]]]:
        """All users' whole histories, ``at_once`` users (a slice of their rows) at a time."""
        begins = self.begins().tolist()
        for start in range(0, len(self.user_ids), at_once):
            end = min(start + at_once, len(self.user_ids))
            spans = [slice(begins[user], begins[user + 1]) for user in range(start, end)]
            yield slice(start, end), [self.history(span) for span in spans]


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
    users, items = _Numbers(), _Numbers()
    columns: dict[str, npt.NDArray[Any]] = {
        "users": users.of(list(user_ids)),
        "items": items.of(list(item_ids)),
        "event_hashes": draws,
        "weights": np.ones(count, np.float32) if weights is None else np.array(weights, np.float32),
        "times_ms": np.array(times_ms, np.int64),
        "append_times_ms": np.array(times_ms, np.int64),
        "partitions": np.zeros(count, np.int32),
        "offsets": np.arange(count, dtype=np.int64),
    }
    return _sorted(users, items, columns)


def load(archive: Archive, rules: EventRules, most: int = 0) -> DataSet:
    """The archive as a data set: cleaned, deduplicated, weighed.

    Read batch by batch: memory is the data set's, not the archive's. Events of a type that the
    settings no longer know are left out. Of a user's events with the same hash the first to arrive
    counts, as in the stream. With ``most`` only the newest so many by arrival are read, and those
    that arrived in the same millisecond as the oldest of them; the data set's window begins there.
    Raises ArchiveError.
    """
    window = archive.window()
    room = sum(end - begin for begin, end in window.values())
    since = 0
    if most:
        since, room = _newest(archive, window, most)
    users, items = _Numbers(), _Numbers()
    # Room at once, of which only what is filled takes memory: batches kept apart until the end
    # would take it twice.
    columns = {name: np.empty(room, dtype) for name, dtype in _DTYPES.items()}
    count = 0
    begins = {name: end for name, (_, end) in window.items()}
    for partition, found in archive.scan(_COLUMNS, window, since_ms=since):
        recent = found.filter(pa.compute.greater_equal(found.column("append_time_ms"), since))
        if not len(recent):
            continue
        begins[str(partition)] = min(begins[str(partition)], recent.column("offset")[0].as_py())
        weights, known = _weigh(recent, rules)
        kept = recent.filter(pa.array(known))
        place = slice(count, count + len(kept))
        for name, column in {
            "users": users.of_column(kept.column("user_id")),
            "items": items.of_column(kept.column("item_id")),
            "event_hashes": kept.column("event_hash").to_numpy(),
            "weights": weights[known],
            "times_ms": kept.column("time_ms").to_numpy(),
            "append_times_ms": kept.column("append_time_ms").to_numpy(),
            "partitions": np.full(len(kept), partition, np.int32),
            "offsets": kept.column("offset").to_numpy(),
        }.items():
            columns[name][place] = column
        count = place.stop
    for name in _DTYPES:
        columns[name] = columns[name][:count]
    if since:
        window = {name: (begins[name], end) for name, (_, end) in window.items()}
    data = _sorted(users, items, columns)
    return replace(data, topic_id=archive.topic_id, window=window)


def _newest(archive: Archive, window: Mapping[str, tuple[int, int]], most: int) -> tuple[int, int]:
    """When the oldest of the ``most`` newest records arrived, 0 where there are no more; and how
    many arrived since.
    """
    parts: list[Int64s] = []
    held = seen = 0
    for _, found in archive.scan(["append_time_ms"], window):
        parts.append(found.column("append_time_ms").to_numpy())
        held += len(found)
        seen += len(found)
        if held > 2 * most:
            parts = [np.partition(np.concatenate(parts), -most)[-most:]]
            held = most
    if seen <= most:
        return 0, seen
    since = int(np.partition(np.concatenate(parts), -most)[-most])
    count = 0
    for _, found in archive.scan(["append_time_ms"], window, since_ms=since):
        count += int(np.count_nonzero(found.column("append_time_ms").to_numpy() >= since))
    return since, count


def _weigh(found: pa.RecordBatch, rules: EventRules) -> tuple[Float32s, Mask]:
    """Each row's weight by ``EventRules.weight``, and whether its type is known."""
    types = found.column("type")
    names = types.dictionary.to_pylist()
    codes = types.indices.to_numpy().astype(np.int64)
    weights = np.array([rules.weights.get(name, 0.0) for name in names])[codes]
    known = np.array([name in rules.weights for name in names])[codes]
    values = found.column("value").to_numpy(zero_copy_only=False)
    rated = known & np.array([name == "rating" for name in names])[codes]
    distinct, place = np.unique(values[rated], return_inverse=True)
    weights[rated] = np.array([rules.weight(_rating(value)) for value in distinct])[place]
    return weights.astype(np.float32), known


def _rating(value: float) -> Event:
    return Event(user_id="", item_id="", type="rating", time_ms=0, value=value)


def _sorted(users: "_Numbers", items: "_Numbers", columns: dict[str, npt.NDArray[Any]]) -> DataSet:
    """The data set of ``columns`` (_DTYPES'), which are taken apart: each is freed after use."""
    user_names, user_ranks = users.sorted()
    item_names, item_ranks = items.sorted()
    columns["users"] = user_ranks[columns["users"]]
    columns["items"] = item_ranks[columns["items"]]
    count = len(columns["users"])
    first = _first_arrivals(columns["users"], columns["event_hashes"], columns["offsets"])
    keys = (columns.pop("event_hashes")[first], columns["times_ms"][first], columns["users"][first])
    order = first[np.lexsort(keys)]
    del first, keys
    for name in list(columns):
        columns[name] = columns[name][order]
    data = DataSet(
        user_names,
        item_names,
        columns["users"],
        columns["items"],
        columns["weights"],
        columns["times_ms"],
        columns["append_times_ms"],
        columns["partitions"],
        columns["offsets"],
    )
    # An item may stand in a repeated event only: then it has no row.
    return data if len(order) == count else data.where(np.ones(len(order), bool))


def _first_arrivals(users: Int32s, event_hashes: UInt64s, offsets: Int64s) -> Int64s:
    """Which rows count: of a user's rows with one hash the one of the lowest offset.

    A user has one partition, so that offsets order all of her events.
    """
    order = np.lexsort((offsets, event_hashes, users))
    first = np.ones(len(order), bool)
    hashes = event_hashes[order]
    first[1:] = hashes[1:] != hashes[:-1]
    del hashes
    owners = users[order]
    first[1:] |= owners[1:] != owners[:-1]
    return order[first]


class _Numbers:
    """Ids and their numbers, in the order in which they are met."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def of(self, ids: Sequence[str]) -> Int32s:
        numbers = self._numbers
        return np.array([numbers.setdefault(found, len(numbers)) for found in ids], np.int32)

    def of_column(self, ids: pa.DictionaryArray) -> Int32s:
        """The numbers of a column's ids; each distinct one is looked up once."""
        used, place = np.unique(ids.indices.to_numpy(), return_inverse=True)
        return self.of(ids.dictionary.take(pa.array(used)).to_pylist())[place]

    def sorted(self) -> tuple[list[str], Int32s]:
        """The ids in their own order, and each number's place in it."""
        names = sorted(self._numbers)
        ranks = np.empty(len(names), np.int32)
        ranks[[self._numbers[name] for name in names]] = np.arange(len(names), dtype=np.int32)
        return names, ranks

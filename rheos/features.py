"""Features: records of items or users as weighted rows of one table.

Trainer and indexer read records through this one implementation: what was learned of the values
travels as parameters in the manifest, what was learned of the rows as a tensor.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

import msgspec
import numpy as np
import numpy.typing as npt

from rheos.catalogue import Item, UserAttributes
from rheos.feature_kinds import Kind, fit_kind, load_kind
from rheos.settings import ITEM_FIELDS, USER_FIELDS, FeatureDeclaration
from rheos.state import Float32s, Int64s

Record = Item | UserAttributes


class Bags(NamedTuple):
    """n records in compressed sparse rows: record i has ``rows[starts[i]:starts[i + 1]]``.

    ``starts`` (n + 1,), ``rows`` and ``weights`` of one length; ``known`` (n,): whether any feature
    of the record was known. No bag is empty, unless no feature is declared at all.
    """

    starts: Int64s
    rows: Int64s
    weights: Float32s
    known: npt.NDArray[np.bool_]

    def take(self, places: Int64s) -> "Bags":
        """The bags of the records at ``places``."""
        begins = self.starts[places]
        lengths = self.starts[places + 1] - begins
        starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
        inside = np.arange(starts[-1]) - np.repeat(starts[:-1] - begins, lengths)
        return Bags(starts, self.rows[inside], self.weights[inside], self.known[places])

    def sums(self, table: Float32s) -> Float32s:
        """Σ weight · table[row] of each record, (n, d)."""
        out = np.zeros((len(self.known), table.shape[1]), np.float32)
        if len(self.rows):
            products = table[self.rows] * self.weights[:, None]
            np.add.reduceat(products, self.starts[:-1], axis=0, out=out)
        return out


class Features:
    """Several fitted features; each has rows of its own in the table of ``size`` rows."""

    def __init__(self, places: Sequence[str], kinds: Sequence[Kind]) -> None:
        self._places = [_Place(place) for place in places]
        self._kinds = list(kinds)
        self._offsets = np.cumsum([0, *(kind.size for kind in kinds)]).tolist()
        self.size: int = self._offsets[-1]
        self.parameters: list[dict[str, Any]] = [
            {"place": place, **kind.parameters} for place, kind in zip(places, kinds, strict=True)
        ]
        # A record of which nothing is known, made once.
        self._nothing = ([int(offset) for offset in self._offsets[:-1]], [1.0] * len(self._kinds))

    @classmethod
    def fit_items(
        cls, declared: Sequence[FeatureDeclaration], records: Sequence[Item | None]
    ) -> Self:
        return cls._fit([feature.place(ITEM_FIELDS) for feature in declared], declared, records)

    @classmethod
    def fit_users(
        cls, declared: Sequence[FeatureDeclaration], records: Sequence[UserAttributes | None]
    ) -> Self:
        return cls._fit([feature.place(USER_FIELDS) for feature in declared], declared, records)

    @classmethod
    def _fit(
        cls,
        places: Sequence[str],
        declared: Sequence[FeatureDeclaration],
        records: Sequence[Record | None],
    ) -> Self:
        kinds = []
        for place, feature in zip(places, declared, strict=True):
            read = _Place(place)
            values = (read.value(record) for record in records if record is not None)
            kinds.append(fit_kind(feature, values))
        return cls(places, kinds)

    @classmethod
    def load(cls, parameters: Sequence[Mapping[str, Any]]) -> Self:
        """Raises KeyError, TypeError or ValueError for what ``parameters`` never gave."""
        kinds = [
            load_kind({key: value for key, value in each.items() if key != "place"})
            for each in parameters
        ]
        return cls([str(each["place"]) for each in parameters], kinds)

    @property
    def layout(self) -> str:
        """Names what the table's rows mean: equal for equal parameters."""
        return hashlib.sha256(msgspec.json.encode(self.parameters)).hexdigest()[:16]

    def encode(self, records: Sequence[Record | None]) -> Bags:
        """Bags of ``records``; None is a record of which nothing is known. Never raises."""
        rows: list[int] = []
        weights: list[float] = []
        starts = np.zeros(len(records) + 1, np.int64)
        known = np.zeros(len(records), bool)
        for place, record in enumerate(records):
            if record is None:
                rows += self._nothing[0]
                weights += self._nothing[1]
            else:
                for offset, found in self._read(record):
                    rows += [offset + row for row in found[0]]
                    weights += found[1]
                    known[place] |= found[0][0] != 0
            starts[place + 1] = len(rows)
        return Bags(starts, np.array(rows, np.int64), np.array(weights, np.float32), known)

    def _read(self, record: Record) -> Iterator[tuple[int, Any]]:
        for place, kind, offset in zip(self._places, self._kinds, self._offsets, strict=False):
            yield offset, kind.rows(place.value(record))


class _Place:
    """Where a feature stands in a record."""

    def __init__(self, place: str) -> None:
        self._field = place if place in ITEM_FIELDS else ""
        self._attribute = place.removeprefix("attributes.")

    def value(self, record: Record) -> object:
        """What stands there, or None."""
        if self._field:
            return getattr(record, self._field, None)
        return record.attributes.get(self._attribute)

"""Item→item weights: for each item those that are taken with it, as a model learned them.

A history scores all items that its own point at:

    s_x = Σ_y c_y B_yx ,   c_y = w_y 2^(-d/half_steps), times `before` if y is of an earlier session

over the latest distinct known items y, w_y being y's weight in the history and d its place, 0 for
the newest. The score is linear in the items, so that it falls apart into one term an item.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from rheos.state import Float32s, Float64s, History, Int32s, Int64s

_DENSE = 16
"""Sums over a row of all items are cheaper than sorting, up to so many items a weight read."""


class Share(NamedTuple):
    """What of a history speaks: rows (n,) of its items, newest first, and how much each counts."""

    rows: Int64s
    shares: Float64s


class Scores(NamedTuple):
    """The items that some weight points at: ``rows`` (n,) ascend; ``values`` (n,)."""

    rows: Int64s
    values: Float64s

    def of(self, wanted: Int64s) -> Float64s:
        """Scores (m,) of the rows ``wanted``: 0 where no weight points, NaN for the row -1."""
        found = np.zeros(len(wanted))
        if len(self.rows):
            place = np.minimum(np.searchsorted(self.rows, wanted), len(self.rows) - 1)
            found = np.where(self.rows[place] == wanted, self.values[place], 0.0)
        return np.where(wanted < 0, np.nan, found)


class ItemWeights:
    """The strongest weights B of each item, in compressed sparse rows.

    Item i points at ``targets[starts[i]:starts[i + 1]]`` with ``weights`` of the same places;
    ``starts`` (N + 1,), ``targets`` and ``weights`` (n,). ``parameters`` say how a history is read,
    and travel in the manifest: ``session_gap_s`` parts sessions, ``half_steps`` and ``before`` are
    those above, and ``last`` items are read at most. A weight takes 8 bytes.

    Raises ValueError for arrays that do not fit each other, numbers that are not finite, and
    parameters out of their bounds.
    """

    def __init__(
        self,
        starts: Int64s,
        targets: Int64s | Int32s,
        weights: Float32s,
        parameters: Mapping[str, Any],
    ) -> None:
        if starts.ndim != 1 or targets.ndim != 1 or weights.ndim != 1 or not len(starts):
            raise ValueError("item weights: starts, targets and weights are one row each")
        items = len(starts) - 1
        fit = starts[0] == 0 and starts[-1] == len(targets) and (np.diff(starts) >= 0).all()
        if not fit or len(weights) != len(targets):
            raise ValueError("item weights: the rows' bounds do not follow on each other")
        if len(targets) and not (targets.min() >= 0 and targets.max() < items):
            raise ValueError(f"item weights: a target is none of the {items} items")
        if not np.isfinite(weights).all():
            raise ValueError("item weights: a weight is not finite")
        self.starts = starts
        self.targets: Int32s = targets.astype(np.int32, copy=False)
        self.weights = weights
        self.parameters = dict(parameters)
        self._gap_ms = 1000 * _number(parameters, "session_gap_s", above=0)
        self._half_steps = _number(parameters, "half_steps", above=0)
        self._before = _number(parameters, "before")
        self._last = int(_number(parameters, "last", above=0))

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def beside(self) -> bool:
        """Whether another model learned them than the one whose vectors they stand beside.

        That model is then named ``by`` in the parameters. Else the vectors only approximate them.
        """
        return "by" in self.parameters

    @classmethod
    def load(cls, parameters: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Self:
        return cls(
            tensors["item_weights.starts"].astype(np.int64),
            tensors["item_weights.targets"],
            tensors["item_weights.weights"],
            parameters,
        )

    def tensors(self) -> dict[str, np.ndarray]:
        """What ``load`` reads, as a snapshot holds it."""
        return {
            "item_weights.starts": self.starts.astype(np.int64),
            "item_weights.targets": self.targets,
            "item_weights.weights": self.weights.astype(np.float32),
        }

    def read(self, history: History, row_of: Mapping[str, int]) -> Share:
        """The items of a history that are scored by, each once at its latest place."""
        shares: dict[int, float] = {}
        times, weights = history.times_ms.tolist(), history.weights.tolist()
        factor = 1.0
        for place in range(len(history.item_ids) - 1, -1, -1):
            if place + 1 < len(times) and times[place + 1] - times[place] > self._gap_ms:
                factor = self._before
            if len(shares) == self._last:
                break
            row = row_of.get(history.item_ids[place])
            if row is not None and row not in shares:
                recency = 0.5 ** (len(shares) / self._half_steps)
                shares[row] = weights[place] * factor * recency
        return Share(
            np.fromiter(shares.keys(), np.int64, len(shares)),
            np.fromiter(shares.values(), np.float64, len(shares)),
        )

    def scores(self, share: Share) -> Scores:
        """The scores of all items that those of ``share`` point at."""
        places, _, values = self._entries(share)
        targets = self.targets[places]
        if len(self) < _DENSE * len(targets):
            sums: Float64s = np.bincount(targets, values, len(self)).astype(np.float64, copy=False)
            rows: Int64s = np.flatnonzero(sums)
            return Scores(rows, sums[rows])
        rows, inverse = np.unique(targets.astype(np.int64), return_inverse=True)
        return Scores(rows, np.bincount(inverse, values, len(rows)).astype(np.float64, copy=False))

    def terms(self, share: Share, wanted: Sequence[int]) -> list[list[tuple[int, float]]]:
        """Per row of ``wanted`` the rows of ``share`` and what each adds to its score."""
        places, sources, values = self._entries(share)
        targets = self.targets[places]
        terms: list[list[tuple[int, float]]] = []
        for row in wanted:
            found = np.flatnonzero(targets == row)
            named = zip(sources[found].tolist(), values[found].tolist(), strict=True)
            terms.append(list(named))
        return terms

    def _entries(self, share: Share) -> tuple[Int64s, Int64s, Float64s]:
        """Places in the arrays that ``share`` reads, the item of each, its weighed value: (m,)."""
        begins = self.starts[share.rows]
        lengths = self.starts[share.rows + 1] - begins
        ends = np.cumsum(lengths)
        offsets = np.repeat(begins - (ends - lengths), lengths)
        places = offsets + np.arange(len(offsets))
        values: Float64s = np.repeat(share.shares, lengths) * self.weights[places]
        return places, np.repeat(share.rows, lengths), values


def _number(parameters: Mapping[str, Any], name: str, above: float | None = None) -> float:
    """A parameter that is a finite number of at least 0, or ``above`` some number."""
    value = parameters[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise ValueError(f"item weights: {name} = {value!r} is no finite number")
    if value < 0 or (above is not None and value <= above):
        raise ValueError(f"item weights: {name} = {value!r} is too small")
    return float(value)

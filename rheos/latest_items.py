"""A history as an encoder reads it: the latest distinct items that a generation knows."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rheos.state import Float32s, History, Int64s


class LatestItems(NamedTuple):
    """Per history its items, newest first, in arrays (B, n): rows, weights, and what is padding.

    Rows and weights are 0 where ``known`` is false; n is the longest history's, at least 1.
    """

    rows: Int64s
    weights: Float32s
    known: npt.NDArray[np.bool_]

    def take(self, places: Int64s) -> "LatestItems":
        """The histories at ``places``."""
        return LatestItems(self.rows[places], self.weights[places], self.known[places])


def latest_items(histories: Sequence[History], row_of: Mapping[str, int], last: int) -> LatestItems:
    """The latest ``last`` distinct known items of each history.

    An item counts once, at its latest place, with its strongest weight there.
    """
    picked: list[dict[int, float]] = []
    for history in histories:
        latest: dict[int, float] = {}
        weights = history.weights.tolist()
        for position in range(len(weights) - 1, -1, -1):
            row = row_of.get(history.item_ids[position])
            if row is None:
                continue
            weight = weights[position]
            kept = latest.get(row)
            if kept is None:
                if len(latest) == last:
                    break
                latest[row] = weight
            elif abs(weight) > abs(kept):
                latest[row] = weight
        picked.append(latest)
    width = max(1, max(map(len, picked), default=0))
    rows = np.zeros((len(picked), width), np.int64)
    factors = np.zeros((len(picked), width), np.float32)
    known = np.zeros((len(picked), width), bool)
    for place, latest in enumerate(picked):
        count = len(latest)
        rows[place, :count] = list(latest)
        factors[place, :count] = list(latest.values())
        known[place, :count] = True
    return LatestItems(rows, factors, known)

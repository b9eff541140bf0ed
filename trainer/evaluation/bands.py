"""Bands: cases by how much the fit saw of their user, or of their item."""

import msgspec
import numpy as np

from rheos.state import Float64s, Int64s
from trainer.evaluation import estimate, metrics
from trainer.evaluation.estimate import Estimate

_BEGINS = (0, 1, 5, 20, 100)
NAMES = ("0", "1-4", "5-19", "20-99", "100+")
"""Interactions in what was fitted. The bounds never move, so that generations compare."""


class Band(msgspec.Struct, frozen=True):
    """The cases of a band and each measure over them, by the names in ``metrics.MEASURES``."""

    name: str
    cases: int
    users: int
    measures: dict[str, Estimate]


def whole(values: Float64s, users: Int64s, name: str = "all") -> Band:
    """All of the cases: ``values`` (n, measures), ``users`` (n,) whose they are."""
    found = {
        measure: estimate.of(values[:, column], users)
        for column, measure in enumerate(metrics.MEASURES)
    }
    return Band(name, len(values), len(np.unique(users)), found)


def by_count(values: Float64s, users: Int64s, counts: Int64s) -> list[Band]:
    """A band for each range of ``counts`` (n,) that has cases. Raises ValueError below 0."""
    if len(counts) and counts.min() < 0:
        raise ValueError("a count of interactions is negative")
    place = np.searchsorted(_BEGINS, counts, side="right") - 1
    return [
        whole(values[place == band], users[place == band], name)
        for band, name in enumerate(NAMES)
        if (place == band).any()
    ]

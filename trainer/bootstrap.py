"""Paired bootstrap: by how much one system beats another on the same queries, and how surely.

Efron & Tibshirani, "An Introduction to the Bootstrap" (1993), chapters 6 and 16; for two systems on
the same queries, Sakai (SIGIR 2006). Resampled are users, with all their queries: those of one user
agree with each other and are no independent evidence.
"""

from typing import NamedTuple

import numpy as np

from rheos.state import Float64s, Int64s

RESAMPLES = 2_000
"""The standard error of a p-value of .05 is then .005."""

_AT_ONCE = 100  # (100, users) counts: 40 MB for 50,000 users


class Difference(NamedTuple):
    """``mean`` of first - second; it is above ``low``, and below ``high``, each with the confidence
    asked for. ``p_value``: how likely the data are, or worse ones for the first, if it falls short
    of the second by no more than the margin.
    """

    mean: float
    low: float
    high: float
    p_value: float

    def told(self) -> dict[str, float]:
        """The figures by name, as a manifest has them."""
        return {
            "difference": self.mean,
            "difference_low": self.low,
            "difference_high": self.high,
            "p_value": self.p_value,
        }


def paired(
    first: Float64s,
    second: Float64s,
    groups: Int64s,
    *,
    margin: float,
    confidence: float,
    random: np.random.Generator,
) -> Difference:
    """Compares the values (n,) of two systems on the same n > 0 queries.

    ``groups`` (n,) names each query's user; ``margin`` is in the values' unit. With one user alone
    nothing is known: the interval has no width then, and the p-value is 1. Raises ValueError
    without queries.
    """
    if not len(first) or not len(first) == len(second) == len(groups):
        raise ValueError(f"{len(first)} and {len(second)} values of {len(groups)} queries")
    _, place = np.unique(groups, return_inverse=True)
    sums = np.bincount(place, weights=first - second)  # (G,)
    counts = np.bincount(place).astype(np.float64)  # (G,)
    mean = float(sums.sum() / counts.sum())
    users = len(sums)
    if users == 1:
        return Difference(mean, mean, mean, 1.0)
    shares = np.full(users, 1.0 / users)
    means = np.empty(RESAMPLES)
    for start in range(0, RESAMPLES, _AT_ONCE):
        drawn = random.multinomial(users, shares, size=_AT_ONCE).astype(np.float64)
        means[start : start + _AT_ONCE] = (drawn @ sums) / (drawn @ counts)
    low, high = np.quantile(means, [1 - confidence, confidence])
    # The observed value counts as one of the resamples, so that no p-value is 0.
    p_value = (1 + int((means >= -margin).sum())) / (1 + RESAMPLES)
    return Difference(mean, float(low), float(high), p_value)

"""A mean over cases and how far it may be off: some users bring many cases, which agree."""

import msgspec
import numpy as np

from rheos.state import Float64s, Int64s


class Estimate(msgspec.Struct, frozen=True):
    """A mean and its standard error; both NaN without cases, the error NaN with one group."""

    mean: float
    standard_error: float


def of(values: Float64s, groups: Int64s) -> Estimate:
    """The mean of ``values`` (n,), whose cases fall into ``groups`` (n,), a user's each.

    The error is that of a ratio of two sums over groups: with e_g the sum of (value - mean) over
    the group g of G, sqrt(G / (G - 1) * sum e_g^2) / n (Cameron & Miller 2015, "A practitioner's
    guide to cluster-robust inference", section II). Where each case is its own group it is the
    usual standard deviation / sqrt(n).
    """
    if not len(values):
        return Estimate(np.nan, np.nan)
    average = float(values.mean())
    _, place = np.unique(groups, return_inverse=True)
    sums = np.bincount(place, weights=values - average)
    count = len(sums)
    if count == 1:
        return Estimate(average, np.nan)
    error = np.sqrt(count / (count - 1) * (sums**2).sum()) / len(values)
    return Estimate(average, float(error))

"""How much an old interaction still counts in a fit: as much as in the fold-in that serves it.

Fold-ins damp a history by the rank of its items, 2^(-rank / half_steps), the latest having rank 0.
A user vector that was fitted is then of another loss than one that was folded in, unless the fit
damps in the same way.
"""

import numpy as np

from rheos.state import Float32s, Float64s, Int32s, Int64s
from trainer.data_set import DataSet, Pairs


def recency(data: DataSet, found: Pairs, half_steps: float) -> Float32s:
    """2^(-rank / ``half_steps``) of each pair, (P,), divided by its mean over the user's pairs.

    A pair's rank is the number of the user's other items that she has met since. Pairs of the same
    time share the mean of what they would get in any order, so that the order of a basket's lines,
    which is one of chance, counts for nothing.
    """
    order = np.argsort(found.latest)  # by user, then time
    users, times = found.users[order], data.times_ms[found.latest[order]]
    later = np.searchsorted(users, users, side="right") - 1 - np.arange(len(users))
    same = (users[1:] == users[:-1]) & (times[1:] == times[:-1])
    at_once = np.cumsum(np.concatenate([[False], ~same]))
    damped = _mean_of_each(at_once, np.exp2(-later / half_steps))
    out = np.empty(len(order), np.float32)
    out[order] = damped / _mean_of_each(users, damped)
    return out


def _mean_of_each(group: Int64s | Int32s, values: Float64s) -> Float64s:
    """The mean over its group for each of the values (P,)."""
    means: Float64s = np.bincount(group, values) / np.maximum(np.bincount(group), 1)
    return means[group]

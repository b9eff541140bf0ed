"""Forward decay: sums that halve with event time, exactly the same however the log is cut up.

Cormode, Shkapenyuk, Srivastava & Xu, "Forward Decay" (ICDE 2009). A weight w at time t is added as
w · 2^((t − L)/h) with a landmark L = epoch · 64 h. Moving a sum to a later epoch multiplies it by
2^−64 per epoch, which is exact in floating point, so neither late events nor the moment of the
move change a bit of the result.
"""

import numpy as np

from rheos.state import Float64s, Int64s

HALF_LIVES_PER_EPOCH = 64


def epochs_of(times_ms: Int64s, half_life_ms: int) -> Int64s:
    """The epoch of each time."""
    epochs: Int64s = times_ms // (HALF_LIVES_PER_EPOCH * half_life_ms)
    return epochs


def growth(times_ms: Int64s, half_life_ms: int) -> Float64s:
    """2^((t − L)/h) for each time, L the start of its own epoch: from 1 to 2^64."""
    since = times_ms % (HALF_LIVES_PER_EPOCH * half_life_ms)
    factors: Float64s = np.exp2(since / half_life_ms)
    return factors


def shift(epochs: Int64s | int) -> Float64s:
    """2^(−64 · epochs): what a sum is multiplied by to be told from a landmark that much later."""
    factors: Float64s = np.ldexp(1.0, -HALF_LIVES_PER_EPOCH * np.asarray(epochs))
    return factors

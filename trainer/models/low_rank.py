"""The leading singular vectors of a linear map that is known by its products only.

Halko, Martinsson & Tropp, "Finding Structure with Randomness: Probabilistic Algorithms for
Constructing Approximate Matrix Decompositions" (SIAM Review 2011), algorithms 4.4 and 5.1.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from rheos.state import Float32s

OVERSAMPLED = 32
POWERS = 4
"""The spectra of interaction matrices fall slowly: fewer powers leave the last vectors rough."""

Product = Callable[[Float32s], Float32s]


class LowRank(NamedTuple):
    """left diag(sizes) rightᵀ: (m, k), (k,) descending, (n, k); k columns of each orthonormal."""

    left: Float32s
    sizes: Float32s
    right: Float32s

    def factors(self) -> tuple[Float32s, Float32s]:
        """P (m, k), Q (n, k) with P Qᵀ the approximation, each with the root of the sizes."""
        root = np.sqrt(self.sizes)
        return self.left * root, self.right * root


def low_rank(
    times: Product, times_transposed: Product, width: int, rank: int, seed: int
) -> LowRank:
    """The map's best approximation of ``rank``, or close to it, m and n at most.

    ``times`` takes (n, c) to (m, c), n being ``width``; ``times_transposed`` the other way.
    """
    columns = min(rank + OVERSAMPLED, width)
    random = np.random.default_rng(seed)
    basis: Float32s = random.standard_normal((width, columns)).astype(np.float32)
    for _ in range(POWERS):
        basis = np.linalg.qr(times_transposed(np.linalg.qr(times(basis))[0]))[0]
    image = times(basis)  # (m, c): the map on the basis' span
    orthonormal, small = np.linalg.qr(image)
    u, sizes, v = np.linalg.svd(small.astype(np.float64))
    kept = min(rank, len(sizes))
    return LowRank(
        orthonormal @ u[:, :kept].astype(np.float32),
        sizes[:kept].astype(np.float32),
        basis @ v[:kept].T.astype(np.float32),
    )

"""Item-based nearest neighbours.

Deshpande & Karypis, "Item-Based Top-N Recommendation Algorithms" (ACM TOIS 2004): cosine between
the items' columns of users, with the usual shrinkage of rare items.
"""

from collections.abc import Sequence

import numpy as np

from rheos.state import Float64s, Int64s


class ItemKnn:
    """score(x) = Σ_y 2^(-age of y / ``half_steps``) s_yx over the history's items y.

    s_yx = n_yx / √((n_y + shrink) (n_x + shrink)) for the ``neighbours`` nearest items x of y, else
    0; n counts sequences with the item, or with both. An (N, N) array of float64.
    """

    def __init__(
        self,
        sequences: Sequence[Int64s],
        items: int,
        *,
        neighbours: int = 100,
        shrink: float = 20.0,
        half_steps: float = 5.0,
    ) -> None:
        both = np.zeros((items, items))
        for sequence in sequences:
            distinct = np.unique(sequence)
            both[distinct[:, None], distinct] += 1.0
        norms = np.sqrt(np.diag(both) + shrink)
        np.fill_diagonal(both, 0.0)
        near = both / (norms[:, None] * norms)
        if neighbours < items:
            edges = np.partition(near, items - neighbours, axis=1)[:, items - neighbours]
            near[near < edges[:, None]] = 0.0
        self._near = near
        self._half_steps = half_steps

    def scores(self, history: Int64s) -> Float64s:
        ages = np.arange(len(history))[::-1]
        summed: Float64s = 0.5 ** (ages / self._half_steps) @ self._near[history]
        return summed

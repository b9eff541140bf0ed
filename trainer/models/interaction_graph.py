"""The graph of users and items: an edge wherever a pair's mean weight is above 0."""

from typing import NamedTuple

import numpy as np
from scipy import sparse

from rheos.state import Float64s, Int32s, Int64s
from trainer.data_set import DataSet, pairs


class InteractionGraph(NamedTuple):
    """The edges, by user and then item, as rows (n,) of U users and N items."""

    users: Int32s
    items: Int32s
    user_count: int
    item_count: int

    def user_degrees(self) -> Int64s:
        """(U,)"""
        return np.bincount(self.users, minlength=self.user_count)

    def item_degrees(self) -> Int64s:
        """(N,)"""
        return np.bincount(self.items, minlength=self.item_count)

    def normalised(self) -> sparse.csr_array:
        """R̃ (U, N): an edge of u and i is 1 / √(|u| |i|) of their degrees.

        He et al., "LightGCN" (SIGIR 2020), eq. 3; also Choi et al. (CIKM 2023), section 2.1.
        """
        scale = self.user_degrees()[self.users] * self.item_degrees()[self.items]
        return self._matrix(1.0 / np.sqrt(scale))

    def means(self) -> sparse.csr_array:
        """The mean over each user's items, (U, N)."""
        return self._matrix(1.0 / self.user_degrees()[self.users])

    def _matrix(self, values: Float64s) -> sparse.csr_array:
        shape = (self.user_count, self.item_count)
        where = (self.users.astype(np.int32), self.items.astype(np.int32))
        return sparse.coo_array((values.astype(np.float32), where), shape).tocsr()


def graph_of(data: DataSet) -> InteractionGraph:
    """The graph of a data set. Raises ValueError where it has no edge."""
    found = pairs(data)
    taken = found.mean_weights > 0
    if not taken.any():
        raise ValueError("no interaction has a weight above 0")
    return InteractionGraph(
        found.users[taken], found.items[taken], len(data.user_ids), len(data.item_ids)
    )

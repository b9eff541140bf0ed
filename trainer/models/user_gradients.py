"""What each user would have the item vectors be: gradients of an implicit factor model by user.

The loss of Hu, Koren & Volinsky, "Collaborative Filtering for Implicit Feedback Datasets" (ICDM
2008, eq. 3), one user at a time: L_u = Σ_i c_ui (p_ui - x_uᵀ y_i)² with the user's own x_u at its
minimum (eq. 4). A user's gradient for all item vectors is then one outer product, r_u x_uᵀ, whose
length is exact at no cost: what clipping by user needs.
"""

from typing import NamedTuple

import numpy as np

from rheos.state import Float32s, Int64s
from trainer.data_set import DataSet, pairs


class Gradients(NamedTuple):
    """Of B users: ∂L_u/∂Y = r_u x_uᵀ, with r (B, N) and x (B, d)."""

    r: Float32s
    x: Float32s

    def lengths(self) -> Float32s:
        """Frobenius norms of the users' gradients, (B,)."""
        squares = np.square(self.r).sum(axis=1) * np.square(self.x).sum(axis=1)
        lengths: Float32s = np.sqrt(squares)
        return lengths

    def total(self, shares: Float32s | None = None) -> Float32s:
        """The sum (N, d) of the users' gradients, each times its share (B,)."""
        x: Float32s = self.x if shares is None else self.x * shares[:, None]
        total: Float32s = self.r.T @ x
        return total


class UserGradients:
    """The users of a data set, each with the items taken or turned down."""

    def __init__(self, data: DataSet, *, alpha: float, regularisation: float) -> None:
        """c_ui = 1 + α|w̄_ui| for what is in the data and 1 for all else; p_ui = 1 if w̄_ui > 0.

        Raises ValueError where no interaction has a weight above 0.
        """
        found = pairs(data)
        if not (found.mean_weights > 0).any():
            raise ValueError("no interaction has a weight above 0")
        self._begins = np.searchsorted(found.users, np.arange(len(data.user_ids) + 1))
        self._items = found.items.astype(np.int64)
        self._wanted = (found.mean_weights > 0).astype(np.float32)
        self._extra = (alpha * np.abs(found.mean_weights)).astype(np.float32)  # c - 1
        self._regularisation = regularisation

    def vectors(self, users: Int64s, Y: Float32s) -> Float32s:
        """x (B, d): each user's own minimum with the item vectors Y (N, d) fixed (eq. 4)."""
        gram = Y.T @ Y + self._regularisation * np.eye(Y.shape[1], dtype=np.float32)
        systems = np.empty((len(users), *gram.shape), np.float32)
        targets = np.empty((len(users), Y.shape[1]), np.float32)
        for place, user in enumerate(users):
            span = slice(self._begins[user], self._begins[user + 1])
            Yu, extra = Y[self._items[span]], self._extra[span]  # (n, d), (n,)
            systems[place] = gram + Yu.T @ (extra[:, None] * Yu)
            targets[place] = ((1.0 + extra) * self._wanted[span]) @ Yu
        solved: Float32s = np.linalg.solve(systems, targets[:, :, None])[:, :, 0]
        return solved

    def of(self, users: Int64s, Y: Float32s) -> Gradients:
        """The gradients of ``users`` (B,), with their vectors solved for. Needs B N floats."""
        x = self.vectors(users, Y)
        r = x @ Y.T  # what a c of 1 and a p of 0 leave: the score itself, (B, N)
        for place, user in enumerate(users):
            span = slice(self._begins[user], self._begins[user + 1])
            items = self._items[span]
            r[place, items] = (1.0 + self._extra[span]) * (r[place, items] - self._wanted[span])
        return Gradients(2.0 * r, x)

"""The operator of blurring and sharpening: a history's items in, scores of all items out.

Choi, Hong, Park & Cho, "Blurring-Sharpening Process Models for Collaborative Filtering" (SIGIR
2023). The processes are differential equations of a linear right-hand side; with Euler's method
for the blurring and one Runge-Kutta step for the sharpening, as in the paper, the whole is a
polynomial that needs no solver:

    S(r) = r (β D^(-1/2) V Vᵀ D^(1/2) + P) q(P) ,   P = R̃ᵀR̃ ,   q(P) = Σ_k (-T P)ᵏ / k! , k = 0 … 4

R̃ is the normalised matrix of users and items, V its leading right singular vectors (the ideal
low-pass filter), D the items' degrees, β the filter's share and T the time of sharpening.
"""

from collections.abc import Callable

import numpy as np
from scipy import sparse

from rheos.state import Float32s
from trainer.models.interaction_graph import InteractionGraph
from trainer.models.low_rank import low_rank

COLUMNS = 64
"""So many at once: a row of them is four cache lines, and what a product reads again is near."""
ORDER = 4
"""Of the Runge-Kutta method: for y' = -P y one step is the series of e^(-T P) up to here."""


class Blurring:
    """S and its transpose as products with dense blocks of columns."""

    def __init__(
        self, graph: InteractionGraph, *, rank: int, low_pass: float, sharpening: float, seed: int
    ) -> None:
        """Finds V: some seconds to minutes."""
        self._edges = graph.normalised()
        self._back: sparse.csr_array = self._edges.T.tocsr()
        self._low_pass, self._sharpening = low_pass, sharpening
        found = low_rank(
            lambda x: self._edges @ x, lambda x: self._back @ x, graph.item_count, rank, seed
        )
        self._v = found.right  # (N, r)
        degrees = np.maximum(graph.item_degrees(), 1)
        self._root: Float32s = np.sqrt(degrees).astype(np.float32)[:, None]  # D^(1/2), (N, 1)

    def scores(self, histories: sparse.csr_array) -> Float32s:
        """S of histories (B, N), the weights of a user's items: (B, N)."""
        columns: Float32s = histories.T.toarray().astype(np.float32)
        scores: Float32s = self.times_transposed(columns).T
        return scores

    def times_transposed(self, x: Float32s) -> Float32s:
        """Sᵀ x for x (N, c)."""

        def work(part: Float32s) -> Float32s:
            filtered = self._root * (self._v @ (self._v.T @ (part / self._root)))
            return self._sharpened(self._low_pass * filtered + self._blurred(part))

        return _in_parts(work, x)

    def times(self, x: Float32s) -> Float32s:
        """S x for x (N, c)."""

        def work(part: Float32s) -> Float32s:
            part = self._sharpened(part)
            filtered = (self._v @ (self._v.T @ (part * self._root))) / self._root
            return self._low_pass * filtered + self._blurred(part)

        return _in_parts(work, x)

    def _blurred(self, x: Float32s) -> Float32s:
        """P x."""
        product: Float32s = self._back @ (self._edges @ x)
        return product

    def _sharpened(self, x: Float32s) -> Float32s:
        """q(P) x."""
        total, term = x, x
        for k in range(1, ORDER + 1):
            term = self._blurred(term)
            term *= np.float32(-self._sharpening / k)
            total = total + term
        return total


def _in_parts(work: Callable[[Float32s], Float32s], x: Float32s) -> Float32s:
    out: Float32s = np.empty(x.shape, np.float32)
    for begin in range(0, x.shape[1], COLUMNS):
        part = slice(begin, begin + COLUMNS)
        out[:, part] = work(np.ascontiguousarray(x[:, part]))
    return out

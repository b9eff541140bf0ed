"""Adam for a table of which a step moves some rows only: Kingma & Ba (ICLR 2015), algorithm 1."""

import torch
from torch import Tensor


class RowAdam:
    """Moments and step counts are a row's own: a row that is not in a step stays as it is.

    β₂ is lower than the usual .999, since a row has as many steps as there are epochs, not batches.
    """

    def __init__(self, table: Tensor, beta1: float = 0.9, beta2: float = 0.99) -> None:
        self._table = table
        self._m = torch.zeros_like(table)
        self._v = torch.zeros_like(table)
        self._steps = torch.zeros(len(table), 1, device=table.device)
        self._beta1, self._beta2 = beta1, beta2

    @torch.no_grad()
    def step(self, rows: Tensor, gradient: Tensor, learning_rate: float) -> None:
        """Moves ``rows`` (B,), all distinct, against ``gradient`` (B, columns)."""
        steps = self._steps[rows] + 1
        m = torch.lerp(gradient, self._m[rows], self._beta1)
        v = torch.lerp(gradient.square(), self._v[rows], self._beta2)
        self._steps[rows], self._m[rows], self._v[rows] = steps, m, v
        length = (v / (1 - self._beta2**steps)).sqrt_().add_(1e-10)
        self._table[rows] -= learning_rate * (m / (1 - self._beta1**steps)) / length

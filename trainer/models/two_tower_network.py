"""The two towers in PyTorch; rheos.two_tower_encoder and rheos.two_tower_content serve them."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from rheos.features import Bags
from rheos.state import Float32s, Int64s


class Sizes(NamedTuple):
    """Items, rows of the two feature tables, recencies, d and the width m of the hidden layers."""

    items: int
    item_features: int
    user_features: int
    recencies: int
    factors: int
    hidden: int


class Past(NamedTuple):
    """Histories: rows (B, n) of items and their shares (B, S, n) of each recency's mean."""

    rows: Int64s
    shares: Float32s


class Network(nn.Module):
    """Vectors of users and items whose inner product is the logit. The equations stand in rheos.

    The features' tables begin at 0, so that a value that training never met adds nothing.
    """

    def __init__(self, sizes: Sizes, random: torch.Generator) -> None:
        super().__init__()
        d, m, wide = sizes.factors, sizes.hidden, sizes.recencies * sizes.factors

        def table(rows: int, columns: int, scale: float) -> nn.Parameter:
            return nn.Parameter(torch.randn(rows, columns, generator=random) * scale)

        def zeros(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros(shape))

        self.own = table(sizes.items, d, d**-0.5)
        self.item_table = zeros(sizes.item_features, d)
        self.item_first = table(d, m, (2 / d) ** 0.5)
        self.item_bias = zeros(m)
        self.item_out = table(m, d, 0.1 * m**-0.5)
        self.history = table(sizes.items, d, d**-0.5)
        self.nothing = table(1, wide, d**-0.5)
        self.user_table = zeros(sizes.user_features, m)
        self.user_first = table(wide, m, (2 / wide) ** 0.5)
        self.user_bias = zeros(m)
        self.user_skip = table(wide, d, wide**-0.5)
        self.user_out = table(m, d, m**-0.5)
        self.user_out_bias = zeros(d)

    @torch.no_grad()
    def begin_with_popularity(self, popularity: Float32s) -> None:
        """Lets a first number of the vectors say what ``popularity`` (N,) does, to all users.

        What the softmax would need many epochs for: log-popularity spans many times more than
        tastes do.
        """
        self.own[:, 0] = torch.from_numpy(popularity)
        self.user_out_bias[0] = 1.0

    def items(self, rows: Int64s, bags: Bags, kept: Tensor | None = None) -> Tensor:
        """Vectors (n, d); the own embedding counts where ``kept`` (n,) is 1."""
        own = functional.embedding(self._on(rows), self.own)
        if kept is not None:
            own = own * kept[:, None]
        z = own + self._sums(self.item_table, bags)
        hidden = torch.relu(z @ self.item_first + self.item_bias)
        return z + hidden @ self.item_out

    def users(self, past: Past, bags: Bags) -> Tensor:
        """Vectors (B, d)."""
        embedded = functional.embedding(self._on(past.rows), self.history)  # (B, n, d)
        shares = self._on(past.shares)
        x = torch.matmul(shares, embedded).flatten(1)  # (B, S d)
        x = torch.where((shares != 0).flatten(1).any(1, keepdim=True), x, self.nothing)
        features = self._sums(self.user_table, bags)
        hidden = torch.relu(x @ self.user_first + features + self.user_bias)
        return x @ self.user_skip + hidden @ self.user_out + self.user_out_bias

    def _sums(self, table: Tensor, bags: Bags) -> Tensor:
        """Σ weight · row of each bag, (n, columns)."""
        if not len(table):
            return table.new_zeros(len(bags.known), table.shape[1])
        return functional.embedding_bag(
            self._on(bags.rows),
            table,
            self._on(bags.starts[:-1]),
            mode="sum",
            per_sample_weights=self._on(bags.weights),
        )

    def _on(self, array: Int64s | Float32s) -> Tensor:
        return torch.from_numpy(array).to(self.own.device)

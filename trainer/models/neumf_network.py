"""The network of NeuMF, in PyTorch.

He et al., "Neural Collaborative Filtering" (WWW 2017): GMF eq. 9, MLP eq. 10, NeuMF eq. 12.
"""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional


class Sizes(NamedTuple):
    """Rows of the tables, and the widths of the two branches."""

    users: int
    items: int
    factors: int
    mlp_factors: int
    mlp_layers: int


class Network(nn.Module):
    """The GMF branch, the MLP branch, or both: logits of one user's items.

    MLP's first layer is kept in its users' and its items' half, so that a user's half is computed
    once for all items.
    """

    def __init__(self, sizes: Sizes, random: torch.Generator, *, gmf: bool, mlp: bool) -> None:
        super().__init__()
        self.gmf, self.mlp = gmf, mlp
        width = sizes.mlp_factors

        def table(rows: int, columns: int, scale: float) -> nn.Parameter:
            return nn.Parameter(torch.randn(rows, columns, generator=random) * scale)

        self.bias = nn.Parameter(torch.zeros(()))
        if gmf:
            self.p = table(sizes.users, sizes.factors, 0.05)
            self.q = table(sizes.items, sizes.factors, 0.05)
            self.h = nn.Parameter(torch.ones(sizes.factors))
        if mlp:
            self.user = table(sizes.users, width, 0.05)
            self.item = table(sizes.items, width, 0.05)
            # The first layer halves the two vectors' 2 * width to width; He's initial scale.
            self.user_half = table(width, width, width**-0.5)
            self.item_half = table(width, width, width**-0.5)
            self.first_bias = nn.Parameter(torch.zeros(width))
            widths = [max(1, width >> layer) for layer in range(sizes.mlp_layers)]
            self.weights = nn.ParameterList(
                table(before, after, (2 / before) ** 0.5) for before, after in pairwise(widths)
            )
            self.biases = nn.ParameterList(nn.Parameter(torch.zeros(after)) for after in widths[1:])
            self.out = nn.Parameter(torch.randn(widths[-1], generator=random) * widths[-1] ** -0.5)

    def forward(self, user: Tensor, item: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, k) of ``item`` (B, k) for ``user`` (B,), and the users' mean square."""
        p = functional.embedding(user, self.p) if self.gmf else None
        a = functional.embedding(user, self.user) if self.mlp else None
        squares = sum((part.square().sum() for part in (p, a) if part is not None), torch.zeros(()))
        halves = a @ self.user_half if a is not None else None
        return self.score(p, halves, item), squares / len(user)

    def score(self, p: Tensor | None, half: Tensor | None, item: Tensor) -> Tensor:
        """Logits (B, k) from p (B, d) and the users' half (B, m) of MLP's first layer."""
        logits = self.bias.expand(item.shape)
        if p is not None:
            q = functional.embedding(item, self.q)  # (B, k, d)
            logits = logits + torch.matmul(q, (p * self.h)[:, :, None])[:, :, 0]
        if half is not None:
            items = functional.embedding(item, self.item) @ self.item_half  # (B, k, m)
            hidden = torch.relu(items + half[:, None, :] + self.first_bias)
            for weight, bias in zip(self.weights, self.biases, strict=True):
                hidden = torch.relu(hidden @ weight + bias)
            logits = logits + hidden @ self.out
        return logits

    def item_vectors(self) -> Tensor:
        """h ⊙ q, (N, d)."""
        return (self.q * self.h).detach()

    def user_vectors(self) -> Tensor:
        """The fitted users' (p, their half of MLP's first layer), (U, d + m)."""
        return torch.cat([self.p, self.user @ self.user_half], 1).detach()

    @torch.no_grad()
    def join(self, gmf: "Network", mlp: "Network") -> None:
        """Starts from two trained branches, each with half a say (section 3.4.1, α = .5)."""
        trained = {**dict(gmf.named_parameters()), **dict(mlp.named_parameters())}
        for name, parameter in self.named_parameters():
            parameter.copy_(trained[name])
        self.h.mul_(0.5)
        self.out.mul_(0.5)
        self.bias.copy_((gmf.bias + mlp.bias) / 2)

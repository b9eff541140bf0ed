"""The network of NeuMF and its parts, in PyTorch.

He et al., "Neural Collaborative Filtering" (WWW 2017): GMF eq. 9, MLP eq. 10, NeuMF eq. 12. To
these the score adds a bias a user and an item, as in Rendle, Krichene, Zhang & Anderson, "Neural
Collaborative Filtering vs. Matrix Factorization Revisited" (RecSys 2020): without them the vectors
must spend themselves on popularity, which L2 works against.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

LAYERS_SHARE = 0.01
"""MLP's layers have so much less L2 than its vectors: every example uses all of their numbers."""


class Sizes(NamedTuple):
    """Rows of the tables, and the widths of the branches; a branch of width 0 is not there."""

    users: int
    items: int
    factors: int = 0
    mlp_factors: int = 0
    mlp_layers: int = 1


class Network(nn.Module):
    """logit = hᵀ(p ⊙ q) + gᵀ MLP(v, w) + bias of the user + bias of the item.

    The users' table ``users`` (U, d + 1 + m) holds p, the bias and v, and is no parameter: a step
    moves the rows of its own users only. MLP's first layer is relu(v F₀ + w F₁ + bias), its matrix
    in halves ``first``, (m, m) each; a = v F₀ and b = w F₁ are what serving knows of v and w.
    """

    def __init__(
        self,
        sizes: Sizes,
        random: torch.Generator,
        *,
        weigh: bool = True,
        spread: float | None = None,
    ) -> None:
        """``weigh``: whether h is learned; else it is 1, and GMF a plain inner product.

        ``spread``: the standard deviation of p's and q's numbers at the start; by default .1 / √d.
        """
        super().__init__()
        self.factors, width = sizes.factors, sizes.mlp_factors

        def table(rows: int, columns: int, scale: float) -> Tensor:
            return torch.randn(rows, columns, generator=random) * scale

        d = max(1, sizes.factors)
        spread = 0.1 * d**-0.5 if spread is None else spread
        p, q = (table(rows, sizes.factors, spread) for rows in (sizes.users, sizes.items))
        v, w = (table(rows, width, 0.01) for rows in (sizes.users, sizes.items))
        self.users: Tensor
        self.register_buffer("users", torch.cat([p, torch.zeros(sizes.users, 1), v], 1))
        self.q = nn.Parameter(q)
        self.h = nn.Parameter(torch.ones(sizes.factors), requires_grad=weigh and sizes.factors > 0)
        self.bias = nn.Parameter(torch.zeros(sizes.items))
        self.w = nn.Parameter(w)
        # As the paper's program has it: vectors near 0, the matrix by Glorot & Bengio (2010).
        glorot = (2 / max(1, 3 * width)) ** 0.5
        self.first = nn.ParameterList(table(width, width, glorot) for _ in range(2))
        self.first_bias = nn.Parameter(torch.zeros(width))
        widths = [max(1, width >> layer) for layer in range(sizes.mlp_layers)] if width else [0]
        self.weights = nn.ParameterList(
            table(before, after, (2 / before) ** 0.5) for before, after in pairwise(widths)
        )
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(after)) for after in widths[1:])
        last = widths[-1]
        self.out = nn.Parameter(torch.randn(last, generator=random) * max(1, last) ** -0.5)

    def inner_block(self, user: Tensor, items: Tensor) -> Tensor:
        """What GMF and the biases add to the logits (B, M) of ``items`` (M,) for each of the users'
        rows (B, d + 1 + m).
        """
        p, c, _ = self._parts(user)
        return (p * self.unit_h()) @ functional.embedding(items, self.q).T + self.bias[items] + c

    def mlp_block(self, user: Tensor, items: Tensor, kept: Tensor | None = None) -> Tensor:
        """What MLP adds to the logits of ``items``, (M,) or each user's own (B, M).

        ``kept`` (B, M, m) is what the numbers of its first layer are multiplied by: dropout.
        """
        return self.mlp(self.user_inputs(user), self.item_inputs(items), kept)

    def each(self, user: Tensor, items: Tensor, kept: Tensor | None = None) -> Tensor:
        """Logits (B, M) of its own ``items`` (B, M) for each of the users' rows (B, d + 1 + m).

        ``kept`` as in ``mlp_block``.
        """
        p, c, _ = self._parts(user)
        logits = self.bias[items] + c
        if self.factors:
            q = functional.embedding(items, self.q)  # (B, M, d)
            # A batched matrix product of such small parts takes twice as long on a CPU.
            logits = logits + (q * (p * self.unit_h())[:, None, :]).sum(2)
        if self.out.numel():
            logits = logits + self.mlp_block(user, items, kept)
        return logits

    def user_inputs(self, user: Tensor) -> Tensor:
        """a: what the users' rows (B, d + 1 + m) add to MLP's first layer, (B, m)."""
        return torch.matmul(self._parts(user)[2], self.first[0])

    def item_inputs(self, items: Tensor) -> Tensor:
        """b: what ``items``, of any shape, add to it, (…, m)."""
        distinct, place = torch.unique(items, return_inverse=True)
        return functional.embedding(place, functional.embedding(distinct, self.w) @ self.first[1])

    def unit_h(self) -> Tensor:
        """h at a root mean square of 1: length is p's and q's, or L2 would not bind."""
        return self.h / self.h.square().mean().sqrt().clamp(min=1e-6) if self.factors else self.h

    def squares(self) -> Tensor:
        """What L2 weighs of each item's GMF vector and bias, (N,)."""
        return self.q.square().sum(1) + self.bias.square()

    def layer_squares(self) -> Tensor:
        """What L2 weighs of MLP's layers; were they free, they would make up for short v and w."""
        layers = [*self.first, *self.weights, self.out]
        return LAYERS_SHARE * torch.stack([layer.square().sum() for layer in layers]).sum()

    def _parts(self, user: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        d = self.factors
        return user[:, :d], user[:, d : d + 1], user[:, d + 1 :]

    def mlp(self, a: Tensor, b: Tensor, kept: Tensor | None = None) -> Tensor:
        """Scores (B, M) of the users' ``a`` (B, m) and items' ``b``, (M, m) or (B, M, m)."""
        hidden = torch.relu(a[:, None, :] + b + self.first_bias)
        if kept is not None:
            hidden = hidden * kept
        for weight, bias in zip(self.weights, self.biases, strict=True):
            hidden = torch.relu(hidden @ weight + bias)
        return hidden @ self.out

    @torch.no_grad()
    def average(self, parts: Sequence["Network"]) -> None:
        """Its logits are the mean of those of inner products, whose vectors stand end to end."""
        share = len(parts) ** -0.5
        self.users[:, : self.factors] = share * torch.cat([p.users[:, :-1] for p in parts], 1)
        self.users[:, self.factors] = torch.stack([p.users[:, -1] for p in parts]).mean(0)
        self.q.copy_(share * torch.cat([part.q for part in parts], 1))
        self.bias.copy_(torch.stack([part.bias for part in parts]).mean(0))

    @torch.no_grad()
    def join(self, gmf: "Network", mlp: "Network", alpha: float) -> None:
        """Starts from branches that are trained: GMF's logits have the share α (section 3.4.1)."""
        d, root = self.factors, alpha**0.5
        self.users[:, :d] = root * gmf.users[:, :d]
        self.users[:, d] = alpha * gmf.users[:, d] + (1 - alpha) * mlp.users[:, 0]
        self.users[:, d + 1 :] = mlp.users[:, 1:]
        of_mlp = dict(mlp.named_parameters())
        for name, parameter in self.named_parameters():
            parameter.copy_(getattr(gmf, name) if name in ("q", "h") else of_mlp[name])
        self.q.mul_(root)
        self.out.mul_(1 - alpha)
        self.bias.copy_(alpha * gmf.bias + (1 - alpha) * mlp.bias)

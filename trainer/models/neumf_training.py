"""Trains NeuMF's network, or one of its branches.

The loss is that of He et al., "Neural Collaborative Filtering" (WWW 2017, eq. 7): cross-entropy of
the interactions against items that the user does not have, k for each. The paper draws those one by
one; here a step's users share one draw, and those of it that a user does not have count together k
times as much as what she took. The expected loss is the same, its variance far less (none where all
items are drawn), and a matrix product takes the place of single look-ups.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from trainer import distributed
from trainer.data_set import DataSet, pairs
from trainer.early_stopping import EarlyStopping
from trainer.models.neumf_network import Network
from trainer.models.row_adam import RowAdam

H_SHARE = 0.1
"""h steps so much less: each of its numbers moves all users and items at once."""


class Descent(NamedTuple):
    """How a network is trained: ``batch`` users a step against ``drawn`` items.

    ``regularisation`` (λ) is L2 for each example that a user, an item or a bias stands in, as in
    stochastic gradient descent; ``mlp_regularisation`` that of a and b, which want far less.
    ``learning_rate`` is Adam's, falling in a straight line to 0.
    """

    batch: int
    negatives: float
    drawn: int
    regularisation: float
    learning_rate: float
    mlp_regularisation: float = 0.0
    pairwise: bool = False
    """Each taken item against each drawn one (BPR), instead of each item by itself."""


class Examples(NamedTuple):
    """Distinct pairs by user: ``begins`` (U + 1,) are a user's, rows, targets 1 or 0, weights."""

    begins: Tensor
    items: Tensor
    targets: Tensor
    weights: Tensor
    item_count: int

    def of(self, users: Tensor) -> tuple[Tensor, Tensor]:
        """The pairs of some users: each pair's place in ``users``, and its row here, both (P,)."""
        counts = self.begins[users + 1] - self.begins[users]
        place = torch.arange(len(users), device=users.device).repeat_interleave(counts)
        before = counts.cumsum(0) - counts
        within = torch.arange(len(place), device=users.device) - before[place]
        return place, self.begins[users][place] + within


def examples_of(data: DataSet, device: torch.device) -> Examples:
    """A pair counts with the size of its mean weight; one of a weight below 0 has the target 0.

    Raises ValueError where no weight is above 0.
    """
    found = pairs(data)
    if not (found.mean_weights > 0).any():
        raise ValueError("no interaction has a weight above 0")
    begins = np.searchsorted(found.users, np.arange(len(data.user_ids) + 1))
    weights = torch.from_numpy(found.mean_weights).to(device)
    return Examples(
        torch.from_numpy(begins.astype(np.int64)).to(device),
        torch.from_numpy(found.items.astype(np.int64)).to(device),
        (weights > 0).float(),
        weights.abs(),
        len(data.item_ids),
    )


def train(
    network: Network, examples: Examples, how: Descent, epochs: int, random: torch.Generator
) -> Iterator[float]:
    """Yields the mean loss of an example after each epoch. Raises DivergedError."""
    users = len(examples.begins) - 1
    # In small data a batch is less than all: a user has one step an epoch, an item one a batch.
    batch = max(1, min(how.batch, -(-users // 8)))
    on_users = RowAdam(network.users)
    others = [value for name, value in network.named_parameters() if name != "h"]
    groups = [{"params": others, "share": 1.0}, {"params": [network.h], "share": H_SHARE}]
    optimiser = torch.optim.Adam(groups, how.learning_rate, (0.9, 0.99), 1e-10)
    steps = epochs * -(-users // batch)
    done = 0
    guard = EarlyStopping(1)
    for _ in range(epochs):
        sums = torch.zeros(2, device=network.users.device)
        for rows in torch.split(torch.randperm(users, generator=random), batch):
            rate = how.learning_rate * (1 - done / steps)
            done += 1
            for group in optimiser.param_groups:
                group["lr"] = rate * group["share"]
            items = _drawn(examples.item_count, how.drawn, random)
            rows = rows.to(network.users.device)
            gradient, sum_and_weight = _gradients(
                network, examples, how, rows, items.to(rows.device)
            )
            optimiser.step()
            on_users.step(rows, gradient, rate)
            sums += sum_and_weight
        loss = float(sums[0] / sums[1].clamp(min=1e-30))
        guard.check(loss)
        yield loss


def _gradients(
    network: Network, examples: Examples, how: Descent, rows: Tensor, items: Tensor
) -> tuple[Tensor, Tensor]:
    """Sets the parameters' gradients; gives the users' (B, d + 1 + m), and loss and weight.

    Each process of several works on its share of the users; all get the whole batch's.
    """
    table = network.users[rows].requires_grad_()
    mine = torch.arange(len(rows), device=rows.device)[distributed.own_share()]
    place, pair = examples.of(rows[mine])
    item, target, weight = (part[pair] for part in examples[1:4])
    own = torch.zeros(len(mine), device=rows.device).index_add_(0, place, weight)
    # The drawn items that a user has are not against her.
    column = torch.full((examples.item_count,), -1, device=rows.device)
    column[items] = torch.arange(len(items), device=rows.device)
    free = torch.ones(len(mine), len(items), device=rows.device)
    had = column[item] >= 0
    free[place[had], column[item[had]]] = 0.0
    against = free * (how.negatives * own / free.sum(1).clamp(min=1))[:, None]  # (B, M)

    user = table[mine]
    logits = network.block(user, items)
    all_drawn = len(items) == examples.item_count
    own_logits = (
        logits[place, item] if all_drawn else network.pairs(functional.embedding(place, user), item)
    )
    if how.pairwise:
        # Σ_i w_i mean_j -ln σ(z_i - z_j), and the other way about for what was turned down.
        margins = (2 * target - 1)[:, None] * (own_logits[:, None] - logits[place])  # (P, M)
        shares = free / free.sum(1, keepdim=True).clamp(min=1)
        loss = (weight * (shares[place] * functional.softplus(-margins)).sum(1)).sum()
    else:
        of_pairs = functional.binary_cross_entropy_with_logits(own_logits, target, reduction="none")
        loss = (weight * of_pairs).sum() + (against * functional.softplus(logits)).sum()
    stood_in = torch.zeros(examples.item_count, device=rows.device).index_add_(0, item, weight)
    stood_in = stood_in.index_add_(0, items, against.sum(0))
    of_users, d = own + against.sum(1), network.factors
    squares = of_users @ user[:, : d + 1].square().sum(1) + stood_in @ network.squares()
    mlp_squares = of_users @ user[:, d + 1 :].square().sum(1) + stood_in @ network.b.square().sum(1)
    l2 = 0.5 * (how.regularisation * squares + how.mlp_regularisation * mlp_squares)
    counted = torch.stack([loss.detach(), own.sum() + against.sum()])
    network.zero_grad(set_to_none=True)
    torch.autograd.backward(loss + l2)
    distributed.add_up([counted])
    distributed.add_up_gradients(p for p in network.parameters() if p.requires_grad)
    assert table.grad is not None
    distributed.add_up([table.grad])
    # Divided by the batch's weight: a mean over its examples.
    scale = 1.0 / counted[1].clamp(min=1e-30)
    for parameter in network.parameters():
        if parameter.grad is not None:
            parameter.grad *= scale
    return table.grad * scale, counted


def _drawn(count: int, most: int, random: torch.Generator) -> Tensor:
    """``most`` distinct items at random, all where there are no more."""
    if most >= count:
        return torch.arange(count)
    return torch.randperm(count, generator=random)[:most]

"""Trains NeuMF's network, or one of its branches, in small batches of interactions.

The loss is that of He et al., "Neural Collaborative Filtering" (WWW 2017, eq. 7): cross-entropy of
the interactions against k items for each, drawn from all items or from those that the user does not
have; or BPR's, the same pairs held against each other (Rendle et al., UAI 2009). A step moves only
the users that stand in its batch, so that each has many of them in an epoch: MLP learns nothing
with few.
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
REDRAWS = 10
"""After so many a drawn item stays though its user has it: she may have all."""


class Descent(NamedTuple):
    """How a network is trained: ``batch`` interactions a step, ``negatives`` (k) drawn for each.

    ``regularisation`` (λ) is L2 for each example that a user, an item or a bias stands in, as in
    stochastic gradient descent; ``mlp_regularisation`` that of MLP's vectors, its layers' λ too.
    ``learning_rate`` is Adam's, falling in a straight line to 0.
    """

    batch: int
    negatives: int
    regularisation: float
    learning_rate: float
    mlp_regularisation: float = 0.0
    pairwise: bool = False
    """Each taken item against each drawn one (BPR), instead of each item by itself."""
    unseen: bool = False
    """A user's are drawn from the items that she has not taken, as in the paper."""
    dropout: float = 0.0
    """Share of the numbers of MLP's first layer that an example goes without (Srivastava, Hinton,
    Krizhevsky, Sutskever & Salakhutdinov, JMLR 2014)."""


class Examples(NamedTuple):
    """Distinct pairs, by user: her row and the item's, targets 1 or 0, weights, each (P,)."""

    users: Tensor
    items: Tensor
    targets: Tensor
    weights: Tensor
    item_count: int


def examples_of(data: DataSet, device: torch.device) -> Examples:
    """A pair counts with the size of its mean weight; one of a weight below 0 has the target 0.

    Raises ValueError where no weight is above 0.
    """
    found = pairs(data)
    if not (found.mean_weights > 0).any():
        raise ValueError("no interaction has a weight above 0")
    weights = torch.from_numpy(found.mean_weights).to(device)
    return Examples(
        torch.from_numpy(found.users.astype(np.int64)).to(device),
        torch.from_numpy(found.items.astype(np.int64)).to(device),
        (weights > 0).float(),
        weights.abs(),
        len(data.item_ids),
    )


def train(
    network: Network, examples: Examples, how: Descent, epochs: int, random: torch.Generator
) -> Iterator[float]:
    """Yields the mean loss of an example after each epoch. Raises DivergedError."""
    count = len(examples.users)
    # In small data a batch is less than all, or an epoch would be one step.
    batch = max(1, min(how.batch, -(-count // 8)))
    on_users = RowAdam(network.users)
    others = [value for name, value in network.named_parameters() if name != "h"]
    groups = [{"params": others, "share": 1.0}, {"params": [network.h], "share": H_SHARE}]
    optimiser = torch.optim.Adam(groups, how.learning_rate, (0.9, 0.99), 1e-10)
    steps = epochs * -(-count // batch)
    done = 0
    guard = EarlyStopping(1)
    owners, taken = examples.users.cpu(), _taken(examples) if how.unseen else None
    masks = _Masks(how.dropout, len(network.first_bias), network.users.device, random)
    for _ in range(epochs):
        sums = torch.zeros(2, device=network.users.device)
        for picked in torch.split(torch.randperm(count, generator=random), batch):
            rate = how.learning_rate * (1 - done / steps)
            done += 1
            for group in optimiser.param_groups:
                group["lr"] = rate * group["share"]
            drawn = torch.randint(
                examples.item_count, (len(picked), how.negatives), generator=random
            )
            if taken is not None:
                _redraw(drawn, owners[picked], taken, examples.item_count, random)
            device = network.users.device
            kept = masks.draw(len(picked), 1 + how.negatives)
            rows, gradient, sum_and_weight = _gradients(
                network, examples, how, picked.to(device), drawn.to(device), kept
            )
            optimiser.step()
            on_users.step(rows, gradient, rate)
            sums += sum_and_weight
        loss = float(sums[0] / sums[1].clamp(min=1e-30))
        guard.check(loss)
        yield loss


class _Masks:
    """Dropout's draws. Those of a whole batch, in each of several processes alike."""

    def __init__(self, share: float, width: int, device: torch.device, random: torch.Generator):
        self._keep, self._width, self._device = 1 - share, width, device
        if self._keep < 1:
            seed = int(torch.randint(1 << 62, (), generator=random))
            self._random = torch.Generator(device).manual_seed(seed)

    def draw(self, pairs: int, items: int) -> Tensor | None:
        """What each number is multiplied by, (pairs, items, width): 0, or what makes up for it."""
        if self._keep == 1:
            return None
        drawn = torch.empty(pairs, items, self._width, device=self._device)
        return drawn.bernoulli_(self._keep, generator=self._random).div_(self._keep)


def _taken(examples: Examples) -> Tensor:
    """A number for each pair of target 1, sorted, on the CPU: users · item_count + items."""
    numbers = examples.users * examples.item_count + examples.items
    return numbers[examples.targets > 0].cpu().sort().values


def _redraw(
    drawn: Tensor, owners: Tensor, taken: Tensor, item_count: int, random: torch.Generator
) -> None:
    """Draws those of ``drawn`` (P, k) anew that their ``owners`` (P,) have ``taken``."""
    for _ in range(REDRAWS):
        numbers = owners[:, None] * item_count + drawn
        place = torch.searchsorted(taken, numbers).clamp(max=len(taken) - 1)
        again = taken[place] == numbers
        count = int(again.sum())
        if not count:
            return
        drawn[again] = torch.randint(item_count, (count,), generator=random)


def _gradients(
    network: Network,
    examples: Examples,
    how: Descent,
    picked: Tensor,
    drawn: Tensor,
    kept: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Sets the parameters' gradients; gives the users' rows (B,), their gradients (B, d + 1 + m),
    and loss and weight. ``picked`` (P,) are pairs, ``drawn`` (P, k) what each is held against,
    ``kept`` (P, 1 + k, m) dropout's draws.

    Each process of several works on its share of the pairs; all get the whole batch's.
    """
    rows, place = torch.unique(examples.users[picked], return_inverse=True)
    table = network.users[rows].requires_grad_()
    share = distributed.own_share()
    pair = picked[share]
    items = torch.cat([examples.items[pair][:, None], drawn[share]], 1)  # (P, 1 + k)
    target, weight = examples.targets[pair], examples.weights[pair]
    user = functional.embedding(place[share], table)
    logits = network.each(user, items, None if kept is None else kept[share])
    if how.pairwise:
        # -ln σ(z_i - z_j), and the other way about for what was turned down.
        margins = (2 * target - 1)[:, None] * (logits[:, :1] - logits[:, 1:])
        losses = functional.softplus(-margins)
    else:
        targets = torch.cat([target[:, None], torch.zeros_like(logits[:, 1:])], 1)
        losses = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    loss = (weight[:, None] * losses).sum()
    of_user = weight * items.shape[1]
    stood_in = torch.zeros(examples.item_count, device=rows.device)
    stood_in.index_add_(0, items.view(-1), weight.repeat_interleave(items.shape[1]))
    d = network.factors
    squares = of_user @ user[:, : d + 1].square().sum(1) + stood_in @ network.squares()
    mlp_squares = of_user @ user[:, d + 1 :].square().sum(1) + stood_in @ network.w.square().sum(1)
    mlp_squares = mlp_squares + of_user.sum() * network.layer_squares()  # all examples use them
    l2 = 0.5 * (how.regularisation * squares + how.mlp_regularisation * mlp_squares)
    counted = torch.stack([loss.detach(), of_user.sum()])
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
    return rows, table.grad * scale, counted

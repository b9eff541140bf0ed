"""Stochastic gradient descent for an inner product with biases, one example at a time.

Rendle, Krichene, Zhang & Anderson, "Neural Collaborative Filtering vs. Matrix Factorization
Revisited" (RecSys 2020), section 3: cross-entropy of the interactions against items drawn at random
from all of them, L2 on what an example touches. Their steps are constant; here they fall in a
straight line to 0, which ends nearer to the minimum after fewer epochs. A pair is met as often as
it weighs: one step of many times the length would overshoot. An example is too small for array
operations, so the loop is compiled (Numba).
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numba import njit

from rheos.state import Float32s, Int64s
from trainer.early_stopping import EarlyStopping
from trainer.models.neumf_network import Network
from trainer.models.neumf_training import Examples

SPREAD = 0.1
"""Of the vectors' numbers at the start, as in the paper: small steps leave 0 slowly."""


class StochasticDescent(NamedTuple):
    """``negatives`` items are drawn against each interaction; ``regularisation`` (λ) is L2 for each
    example that a vector or a bias stands in. The first step's length is ``learning_rate``.
    """

    negatives: int
    regularisation: float
    learning_rate: float


@torch.no_grad()
def descend(
    network: Network,
    examples: Examples,
    how: StochasticDescent,
    epochs: int,
    random: torch.Generator,
) -> Iterator[float]:
    """Yields the mean loss of an example after each epoch. Raises DivergedError.

    Of ``network`` the inner product and the biases move, in this thread and on the CPU; it has them
    when the last epoch is done. In an epoch a pair is met as often as its weight is the mean of
    all, by chance where that is no whole number. A bias that all scores share has no L2, or that of
    the items would have to make up for it; it ends as a part of theirs.
    """
    draws = np.random.default_rng(int(torch.randint(1 << 62, (), generator=random)))
    moved = [network.users, network.q, network.bias]
    users, q, bias = (tensor.cpu().numpy().copy() for tensor in moved)
    shared = bias.mean(keepdims=True)
    bias -= shared
    owners, items, targets, weights = (part.cpu().numpy() for part in examples[:4])
    times_met = weights / weights.mean()
    guard = EarlyStopping(1)
    for epoch in range(epochs):
        met = np.floor(times_met + draws.random(len(times_met))).astype(np.int64)
        loss = float(
            _epoch(
                *(users, q, bias, shared, owners, items, targets),
                draws.permutation(np.repeat(np.arange(len(met)), met)),
                how.negatives,
                np.float32(how.learning_rate * (1 - epoch / epochs)),
                np.float32(how.regularisation),
                int(draws.integers(1 << 31)),
            )
        )
        guard.check(loss if np.isfinite(q).all() and np.isfinite(users).all() else np.nan)
        if epoch == epochs - 1:
            for tensor, trained in zip(moved, (users, q, bias + shared), strict=True):
                tensor.copy_(torch.from_numpy(trained))
        yield loss


# Sums in any order, so that the inner product runs on vectors; what is not finite stays so.
@njit(fastmath={"reassoc", "contract"}, error_model="numpy")  # type: ignore[untyped-decorator]
def _epoch(
    users: Float32s,
    q: Float32s,
    bias: Float32s,
    shared: Float32s,
    owners: Int64s,
    items: Int64s,
    targets: Float32s,
    order: Int64s,
    negatives: int,
    rate: Any,
    ridge: Any,
    seed: int,
) -> Any:
    """One pass over the pairs in ``order``; rows of ``users`` begin with (p, c).

    Returns the mean loss of an example. All arithmetic is in single precision.
    """
    np.random.seed(seed)  # of Numba's own generator
    d = q.shape[1]
    one, nothing = np.float32(1.0), np.float32(0.0)
    shrink = one - rate * ridge
    total = 0.0
    for place in order:
        row = users[owners[place]]
        for draw in range(negatives + 1):
            item = items[place] if draw == 0 else np.random.randint(0, len(q))
            target = targets[place] if draw == 0 else nothing
            other = q[item]
            z = row[d] + bias[item] + shared[0]
            for f in range(d):
                z += row[f] * other[f]
            chance = one / (one + np.exp(-z))
            total -= np.log(max(chance if target > nothing else one - chance, 1e-9))
            pull = rate * (target - chance)
            for f in range(d):
                p = row[f]
                row[f] = shrink * p + pull * other[f]
                other[f] = shrink * other[f] + pull * p
            row[d] = shrink * row[d] + pull
            bias[item] = shrink * bias[item] + pull
            shared[0] += pull
    return total / max(1, len(order) * (negatives + 1))

"""Fits the history map of a trained NeuMF network: from what a user did to the network's inputs."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from rheos.history_map import damped
from rheos.latest_items import LatestItems
from rheos.state import Float32s, Int64s
from trainer.data_set import DataSet
from trainer.models.neumf_network import Network

HALF_STEPS = (1.5, 8.0, 1e6)
"""The recencies of the history map: the last items, the visit, and taste of long standing."""
MOST_MOMENTS = 200_000
"""So many moments of the users' past teach the map."""
BATCH = 2048
STEPS = 50
"""An epoch has at least so many steps, in smaller batches where there are few moments."""
NEGATIVES = 16
"""Items drawn at random against each that came next."""
STEP_SHARE = 0.03
"""A step of the optimiser, as a share of the first solution's root mean square."""


class HistoryMapFit:
    """The map's two steps: a closed formula first, then what users took next.

    ``features`` (N, f): what it reads of an item, GMF's vector as it retrieves, MLP's, and a 1.
    """

    def __init__(self, network: Network, data: DataSet, last: int, random: torch.Generator) -> None:
        """Solves the ridge regression of the fitted user vectors on their whole histories."""
        self._network = network
        self._past = _past(data, last, random)
        ones = torch.ones(len(data.item_ids), 1)
        parts = [_unit(network.item_vectors()), _unit(network.item.detach()), ones]
        self.features: Float32s = torch.cat(parts, 1).numpy()
        x = self._means(self._past.finals).astype(np.float64)  # (U, S f)
        y = network.user_vectors().numpy().astype(np.float64)  # (U, d + m)
        gram = x.T @ x
        ridge = 1e-3 * np.trace(gram) / len(gram)
        solution = np.linalg.solve(gram + ridge * np.eye(len(gram)), x.T @ y)
        self._matrix = torch.from_numpy(solution.astype(np.float32))

    def matrix(self) -> Float32s:
        """The map as it stands, (S, f, d + m)."""
        shape = (len(HALF_STEPS), self.features.shape[1], -1)
        matrix: Float32s = self._matrix.detach().reshape(shape).numpy()
        return matrix

    def tune(self, epochs: int, random: torch.Generator) -> Iterator[float]:
        """Moves the map, with the network fixed, to what users took next; yields epochs' losses.

        The network's users have one taste for all of their past; a served user has just done
        something. What retrieves (the GMF branch alone) is trained as well as what ranks (all).
        """
        matrix = self._matrix.requires_grad_()
        # Adam's first steps are of full length whatever the gradient: small beside the solution.
        step = STEP_SHARE * float(matrix.detach().square().mean().sqrt())
        optimiser = torch.optim.Adam([matrix], step)
        for _ in range(epochs):
            losses = []
            order = torch.randperm(len(self._past.nexts), generator=random)
            batch = min(BATCH, max(16, len(order) // STEPS))
            for picked in torch.split(order, batch) if len(order) else ():
                loss = self._loss(picked.numpy(), random)
                # Not loss.backward(): the network's own parameters want no gradients.
                (matrix.grad,) = torch.autograd.grad(loss, [matrix])
                optimiser.step()
                losses.append(loss.detach())
            yield float(torch.stack(losses).mean()) if losses else 0.0

    def _loss(self, moments: Int64s, random: torch.Generator) -> Tensor:
        """Softmax cross-entropy of what came next against items drawn at random."""
        network = self._network
        items, d = network.q.shape
        vectors = torch.from_numpy(self._means(moments)) @ self._matrix  # (B, d + m)
        p, half = vectors[:, :d], vectors[:, d:]
        drawn = torch.randint(items, (len(moments), NEGATIVES), generator=random)
        item = torch.cat([torch.from_numpy(self._past.nexts[moments])[:, None], drawn], 1)
        aim = torch.zeros(len(moments), dtype=torch.int64)
        ranking = functional.cross_entropy(network.score(p, half, item), aim)
        retrieval = functional.cross_entropy(network.score(p, None, item), aim)
        return ranking + retrieval

    def _means(self, places: Int64s) -> Float32s:
        """The damped means of the features before these moments, (B, S f)."""
        latest = self._past.latest.take(places)
        shares = damped(latest, HALF_STEPS).transpose(0, 2, 1)  # (B, S, n)
        means: Float32s = np.matmul(shares, self.features[latest.rows])  # (B, S, f)
        return means.reshape(len(places), len(HALF_STEPS) * self.features.shape[1])


class _Past(NamedTuple):
    """Moments of the users' past: the latest items before each, newest first, and what came next.

    ``latest`` has rows (M + U, n), ``nexts`` (M,): after the moments come the users' ends, whose
    rows are ``finals`` (U,): there a whole history stands before, and nothing comes next.
    """

    latest: LatestItems
    nexts: Int64s
    finals: Int64s


def _past(data: DataSet, last: int, random: torch.Generator) -> _Past:
    """MOST_MOMENTS moments at most, drawn at random, and each user's end."""
    begins = data.begins()
    moments = np.flatnonzero(data.weights > 0)
    moments = moments[moments > begins[data.users[moments]]]
    if len(moments) > MOST_MOMENTS:
        picked = torch.randperm(len(moments), generator=random)[:MOST_MOMENTS].numpy()
        moments = moments[np.sort(picked)]
    places = np.concatenate([moments, begins[1:]])  # what stands before a place is its history
    first = np.concatenate([begins[data.users[moments]], begins[:-1]])
    back = places[:, None] - 1 - np.arange(last)  # newest first, an item as often as it was taken
    known = back >= first[:, None]
    back = np.maximum(back, 0)
    rows = np.where(known, data.items[back], 0).astype(np.int64)
    weights = np.where(known, data.weights[back], 0).astype(np.float32)
    return _Past(
        LatestItems(rows, weights, known),
        data.items[moments].astype(np.int64),
        len(moments) + np.arange(len(data.user_ids)),
    )


def _unit(vectors: Tensor) -> Tensor:
    """Vectors scaled to a root mean square length of 1: one regularisation suits both branches."""
    return vectors / vectors.square().sum(1).mean().sqrt().clamp(min=1e-12)
